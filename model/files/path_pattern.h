// A regular expression on module paths, with the meaning it has in Python's re (through PCRE2).
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace drover {

class PathPattern {
 public:
  // bad_data with `where` when it is not a regular expression.
  PathPattern(const std::string& pattern, const std::string& where);
  bool full_match(const std::string& text) const;  // re.fullmatch
  bool match(const std::string& text) const;       // re.match
  // int(re.match(…).group(name)); bad_data where the group holds anything else.
  std::optional<int64_t> number(const std::string& text, const std::string& name) const;

 private:
  struct Code;
  bool run(const std::string& text, bool to_end) const;
  std::shared_ptr<Code> code_;
};

}  // namespace drover
