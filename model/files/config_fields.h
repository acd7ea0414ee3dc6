// Fields of one JSON object of settings, read strictly: every complaint names the file, the field's path and what is
// allowed. null is absent.
#pragma once
#include <initializer_list>
#include <optional>
#include <string>

#include "kernels/base/json.h"

namespace drover {

class ConfigFields {
 public:
  ConfigFields(const Json& json, std::string where, std::string prefix = "")
      : json_(json), where_(std::move(where)), prefix_(std::move(prefix)) {}

  std::string place(const std::string& name) const { return fmt::format("{}: {}{}", where_, prefix_, name); }
  const Json* find(const std::string& name) const;  // nothing where absent or null
  bool has(const std::string& name) const { return find(name) != nullptr; }
  ConfigFields object(const std::string& name) const;
  auto items() const { return json_.items(); }

  // bad_data when missing without a default, of another type, or out of range.
  int64_t integer(const std::string& name, int64_t least, int64_t most, std::optional<int64_t> absent = {}) const;
  double number(const std::string& name, double least, double most, std::optional<double> absent = {}) const;
  bool flag(const std::string& name, bool absent) const;
  std::string text(const std::string& name) const;

  // Fields that may stand there with their neutral value only.
  void allow_text(const std::string& name, const std::string& value) const;
  void allow_false(const std::string& name) const;
  void allow_null(const std::string& name) const;
  void allow_number(const std::string& name, double value) const;
  void only(std::initializer_list<const char*> names) const;  // any other field that is not null is refused
  bool says_false(const std::string& name) const;

 private:
  [[noreturn]] void wrong(const std::string& name, const Json& value, const std::string& allowed) const;
  const Json& json_;
  std::string where_, prefix_;
};

}  // namespace drover
