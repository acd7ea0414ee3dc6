#include "model/files/config_fields.h"

#include <algorithm>
#include <cmath>

namespace drover {

void ConfigFields::wrong(const std::string& name, const Json& value, const std::string& allowed) const {
  fail(Fault::bad_data, "{} is {}; allowed is {}", place(name),
       clipped(value.dump(-1, ' ', false, Json::error_handler_t::replace)), allowed);
}

const Json* ConfigFields::find(const std::string& name) const {
  const auto found = json_.find(name);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

ConfigFields ConfigFields::object(const std::string& name) const {
  const Json* value = find(name);
  if (value == nullptr) fail(Fault::bad_data, "{} is missing", place(name));
  if (!value->is_object()) wrong(name, *value, "an object");
  return ConfigFields(*value, where_, prefix_ + name + ".");
}

int64_t ConfigFields::integer(const std::string& name, int64_t least, int64_t most,
                              std::optional<int64_t> absent) const {
  const Json* value = find(name);
  if (value == nullptr) {
    if (absent) return *absent;
    fail(Fault::bad_data, "{} is missing; allowed is a whole number from {} to {}", place(name), least, most);
  }
  const std::string allowed = fmt::format("a whole number from {} to {}", least, most);
  // An unsigned value beyond int64 would wrap in get<int64_t>.
  const bool too_large =
      value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(most < 0 ? 0 : most);
  if (!value->is_number_integer() || too_large) wrong(name, *value, allowed);
  const int64_t number = value->get<int64_t>();
  if (number < least || number > most) wrong(name, *value, allowed);
  return number;
}

double ConfigFields::number(const std::string& name, double least, double most, std::optional<double> absent) const {
  const Json* value = find(name);
  if (value == nullptr) {
    if (absent) return *absent;
    fail(Fault::bad_data, "{} is missing; allowed is a number from {} to {}", place(name), least, most);
  }
  if (!value->is_number()) wrong(name, *value, fmt::format("a number from {} to {}", least, most));
  const double number = value->get<double>();
  if (!(number >= least && number <= most)) wrong(name, *value, fmt::format("a number from {} to {}", least, most));
  return number;
}

bool ConfigFields::flag(const std::string& name, bool absent) const {
  const Json* value = find(name);
  if (value == nullptr) return absent;
  if (!value->is_boolean()) wrong(name, *value, "true or false");
  return value->get<bool>();
}

std::string ConfigFields::text(const std::string& name) const {
  const Json* value = find(name);
  if (value == nullptr) fail(Fault::bad_data, "{} is missing; allowed is a string", place(name));
  if (!value->is_string()) wrong(name, *value, "a string");
  return value->get<std::string>();
}

void ConfigFields::allow_text(const std::string& name, const std::string& allowed) const {
  const Json* value = find(name);
  if (value != nullptr && *value != allowed) wrong(name, *value, '"' + allowed + '"');
}

void ConfigFields::allow_false(const std::string& name) const {
  const Json* value = find(name);
  if (value != nullptr && *value != false) wrong(name, *value, "false");
}

void ConfigFields::allow_null(const std::string& name) const {
  const Json* value = find(name);
  if (value != nullptr) wrong(name, *value, "null (the field left out)");
}

void ConfigFields::allow_number(const std::string& name, double allowed) const {
  const Json* value = find(name);
  if (value != nullptr && !(value->is_number() && value->get<double>() == allowed))
    wrong(name, *value, fmt::format("{}", allowed));
}

void ConfigFields::only(std::initializer_list<const char*> names) const {
  for (const auto& [name, value] : json_.items()) {
    const bool known =
        std::any_of(names.begin(), names.end(), [&name = name](const char* known) { return name == known; });
    if (!known && !value.is_null()) {
      fail(Fault::bad_data, "{} is not supported; allowed are {}", place(clipped(name)), fmt::join(names, ", "));
    }
  }
}

bool ConfigFields::says_false(const std::string& name) const {
  const Json* value = find(name);
  return value != nullptr && *value == false;
}

}  // namespace drover
