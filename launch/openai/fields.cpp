#include "launch/openai/fields.h"

#include <algorithm>
#include <cmath>

namespace drover::openai {

namespace {

std::string shown(const OrderedJson& value) {
  if (value.is_structured()) return value.is_array() ? "a list" : "an object";
  return clipped(ApiError::to_body(value), 60);
}

[[noreturn]] void refuse(const std::string& path, const std::string& allowed, const OrderedJson& value) {
  throw invalid_request(path, fmt::format("'{}' must be {}, not {}", path, allowed, shown(value)));
}

bool fits(const OrderedJson& value, int64_t low, int64_t high) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    return false;
  const int64_t number = value.get<int64_t>();
  return low <= number && number <= high;
}

void check_number(const Field& field, const OrderedJson& value, const std::string& path) {
  const bool in_range = value.is_number() && value.get<double>() >= field.least && value.get<double>() <= field.most;
  if (!in_range) refuse(path, fmt::format("a number from {} to {}", field.least, field.most), value);
}

void check_text(const Field& field, const OrderedJson& value, const std::string& path) {
  if (!field.choices.empty()) {
    if (value.is_string() && std::ranges::count(field.choices, value.get<std::string>()) > 0) return;
    refuse(path, fmt::format("one of \"{}\"", fmt::join(field.choices, "\", \"")), value);
  }
  if (!value.is_string()) refuse(path, "a string", value);
  const std::string& text = value.get_ref<const std::string&>();
  const auto bytes = static_cast<int64_t>(text.size());
  const auto allowed = [&](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           field.punctuation.find(c) != std::string::npos;
  };
  if (!field.punctuation.empty()) {
    if (bytes < field.low || bytes > field.high || !std::ranges::all_of(text, allowed))
      refuse(path, fmt::format("{} to {} letters, digits and any of {}", field.low, field.high, field.punctuation),
             value);
  } else if (bytes < field.low || bytes > field.high) {
    refuse(path, fmt::format("a string of {} to {} bytes", field.low, field.high), value);
  }
}

// A text, or a list of at most most_entries of them.
void check_texts(const Field& field, const OrderedJson& value, const std::string& path) {
  if (value.is_string()) return check_text(field, value, path);
  if (!value.is_array() || static_cast<int64_t>(value.size()) > field.most_entries)
    refuse(path, fmt::format("a string, or a list of at most {} strings", field.most_entries), value);
  for (size_t i = 0; i < value.size(); ++i) check_text(field, value[i], fmt::format("{}[{}]", path, i));
}

void check_entries(const Field& field, const OrderedJson& value, const std::string& path, const std::string& of) {
  const auto entries = static_cast<int64_t>(value.size());
  if (entries < field.low || entries > field.high)
    throw invalid_request(
        path, fmt::format("'{}' must have {} to {} {}, and has {}", path, field.low, field.high, of, entries));
}

void check_objects(const Field& field, const OrderedJson& value, const std::string& path) {
  if (!value.is_array()) refuse(path, "a list of objects", value);
  check_entries(field, value, path, "entries");
  for (size_t i = 0; i < value.size(); ++i) {
    if (!value[i].is_object()) refuse(fmt::format("{}[{}]", path, i), "an object", value[i]);
  }
}

void check_biases(const Field& field, const OrderedJson& value, const std::string& path) {
  if (!value.is_object()) refuse(path, "an object of token ids and numbers", value);
  check_entries(field, value, path, "tokens");
  for (const auto& [token, bias] : value.items()) check_number(field, bias, path + "." + clipped(token));
}

void check_content(const OrderedJson& value, const std::string& path) {
  if (!value.is_string() && !value.is_array()) refuse(path, "a string, a list of parts or null", value);
}

void check_choice(const Field& field, const OrderedJson& value, const std::string& path) {
  if (!value.is_object()) check_text(field, value, path);
}

void check(const Field& field, const OrderedJson& value, const std::string& path) {
  switch (field.kind) {
    case FieldKind::integer:
      if (!fits(value, field.low, field.high))
        refuse(path, fmt::format("an integer from {} to {}", field.low, field.high), value);
      return;
    case FieldKind::number: return check_number(field, value, path);
    case FieldKind::boolean:
      if (!value.is_boolean()) refuse(path, "true or false", value);
      return;
    case FieldKind::text: return check_text(field, value, path);
    case FieldKind::object:
      if (!value.is_object()) refuse(path, "an object", value);
      return;
    case FieldKind::objects: return check_objects(field, value, path);
    case FieldKind::texts: return check_texts(field, value, path);
    case FieldKind::token_ids:
      if (!value.is_array()) refuse(path, "a list of token ids", value);
      return check_entries(field, value, path, "token ids");
    case FieldKind::biases: return check_biases(field, value, path);
    case FieldKind::prompt:
      if (!value.is_string() && !value.is_array())
        refuse(path, "a string, a list of strings, a list of token ids or a list of such lists", value);
      return;
    case FieldKind::content: return check_content(value, path);
    case FieldKind::choice: return check_choice(field, value, path);
    case FieldKind::any: return;
  }
}

}  // namespace

const Field* FieldTable::find(const std::string& wanted) const {
  const auto found = std::ranges::find(fields, wanted, &Field::name);
  return found == fields.end() ? nullptr : &*found;
}

OrderedJson parse_body(std::string_view body) {
  OrderedJson json;
  try {
    json = parse_ordered_json(body, "the body");
  } catch (const Error& error) {
    throw api_error_of(error);
  }
  if (!json.is_object()) throw invalid_request("", fmt::format("the body must be a JSON object, not {}", shown(json)));
  return json;
}

Fields::Fields(const OrderedJson& object, const FieldTable& table, std::string place)
    : object_(object), table_(table), place_(std::move(place)) {
  for (const Refused& refused : table.refused) check_refused(refused);
  for (const Field& field : table.fields) {
    const OrderedJson* value = find(field.name);
    if (value) check(field, *value, path_of(field.name));
    if (!value && field.required)
      throw invalid_request(path_of(field.name), fmt::format("'{}' is missing", path_of(field.name)));
  }
}

void Fields::check_refused(const Refused& refused) const {
  const OrderedJson* value = find(refused.name);
  if (!value || std::ranges::count(refused.neutral, *value) > 0) return;
  throw invalid_request(path_of(refused.name),
                        fmt::format("'{}' is not supported: {}", path_of(refused.name), refused.instead),
                        "unsupported_parameter");
}

const OrderedJson* Fields::find(const std::string& name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

const OrderedJson* Fields::find(const std::string& name, FieldKind kind) const {
  const Field* field = table_.find(name);
  require(field != nullptr && field->kind == kind, "a request's field is read as its table has it");
  return json(name);
}

std::optional<int64_t> Fields::integer(const std::string& name) const {
  const OrderedJson* value = find(name, FieldKind::integer);
  return value ? std::optional(value->get<int64_t>()) : std::nullopt;
}

std::optional<double> Fields::number(const std::string& name) const {
  const OrderedJson* value = find(name, FieldKind::number);
  return value ? std::optional(value->get<double>()) : std::nullopt;
}

std::optional<bool> Fields::boolean(const std::string& name) const {
  const OrderedJson* value = find(name, FieldKind::boolean);
  return value ? std::optional(value->get<bool>()) : std::nullopt;
}

std::optional<std::string> Fields::text(const std::string& name) const {
  const OrderedJson* value = find(name, FieldKind::text);
  return value ? std::optional(value->get<std::string>()) : std::nullopt;
}

std::vector<std::string> Fields::texts(const std::string& name) const {
  const OrderedJson* value = find(name, FieldKind::texts);
  if (!value) return {};
  if (value->is_string()) return {value->get<std::string>()};
  return value->get<std::vector<std::string>>();
}

const OrderedJson* Fields::json(const std::string& name) const {
  require(table_.find(name) != nullptr, "a request's field stands in its table");
  read_.insert(name);
  return find(name);
}

void Fields::expect_all_read() const {
  for (const Field& field : table_.fields)
    require(field.ignored || read_.count(field.name) != 0, "every field of a request's table is read");
}

std::vector<int32_t> token_ids_of(const OrderedJson& list, int64_t vocab_size, const std::string& path) {
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    if (!fits(list[i], 0, vocab_size - 1))
      refuse(fmt::format("{}[{}]", path, i), fmt::format("a token id from 0 to {}", vocab_size - 1), list[i]);
    ids.push_back(list[i].get<int32_t>());
  }
  return ids;
}

}  // namespace drover::openai
