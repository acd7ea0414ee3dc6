// The keys that a server answers to: a file with one a line. Blanks around a key and lines that begin with # are passed
// over. Only digests are kept, and no key is ever in a message.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace drover {

class ApiKeys {
 public:
  // missing_input where there is no file. bad_data, with the line: a key shorter than 8 characters or with others than
  // visible ASCII ones; or no key at all. A file that everybody may read is warned of.
  static ApiKeys read(const std::filesystem::path& file);

  // The value of an Authorization header, "Bearer KEY". As long for a wrong key as for any right one. Any thread.
  bool allows(std::string_view authorization) const;
  bool allows_key(std::string_view key) const;  // the key alone, as in an x-api-key header
  size_t size() const { return digests_.size(); }

 private:
  std::vector<std::string> digests_;  // SHA-256, 64 digits each
};

}  // namespace drover
