#include "configs/json_schema.h"

#include <cmath>
#include <optional>
#include <type_traits>

#include "configs/schema.h"
#include "kernels/base/json.h"

namespace drover {

namespace {

const OrderedJson kNothing = {{"enum", {nullptr, "none"}}};  // a key that says it is not there

OrderedJson any_of(std::initializer_list<OrderedJson> kinds) { return {{"anyOf", OrderedJson::array_t(kinds)}}; }

// Where the reader takes any scalar for a text: 2024 is a name too.
OrderedJson text() { return {{"type", {"string", "number", "boolean"}}, {"minLength", 1}}; }

OrderedJson number(const char* type, const Info& info) {
  OrderedJson schema = {{"type", type}};
  const auto limit = [&](const char* word, double value) {
    if (!std::isfinite(value)) return;
    if (value == std::floor(value)) schema[word] = static_cast<int64_t>(value);
    if (value != std::floor(value)) schema[word] = value;
  };
  limit("minimum", info.least);
  limit("maximum", info.most);
  return schema;
}

OrderedJson list_of(const OrderedJson& items) { return {{"type", "array"}, {"items", items}, {"minItems", 1}}; }

OrderedJson object(const OrderedJson& properties) {
  return {{"type", "object"}, {"properties", properties}, {"additionalProperties", false}};
}

template <Choice E>
OrderedJson words() {
  return {{"enum", words_of<E>()}};
}

OrderedJson data_file(bool repeats) {
  OrderedJson properties = {
      {"path", text()}, {"format", words<RowFormat>()}, {"weight", number("number", {.least = 0, .most = 10})}};
  if (repeats) properties["repeat"] = number("number", {.least = 0.01, .most = 100});
  OrderedJson schema = object(properties);
  schema["required"] = {"path"};
  return any_of({text(), schema});
}

OrderedJson data_files(bool repeats) { return any_of({data_file(repeats), list_of(data_file(repeats))}); }

OrderedJson kind(const bool*, const Info&) { return {{"type", "boolean"}}; }
OrderedJson kind(const int64_t*, const Info& info) { return number("integer", info); }
OrderedJson kind(const double*, const Info& info) { return number("number", info); }
OrderedJson kind(const std::string*, const Info& info) {
  OrderedJson schema = text();
  if (!info.allowed.empty()) schema["examples"] = info.allowed;
  return schema;
}
OrderedJson kind(const std::vector<double>*, const Info& info) {
  return {{"type", "array"}, {"items", number("number", info)}, {"minItems", 2}, {"maxItems", 2}};
}
OrderedJson kind(const TargetModules*, const Info&) { return any_of({text(), list_of(text())}); }
OrderedJson kind(const TracedSteps*, const Info& info) {
  return any_of({kNothing,
                 {{"type", "string"}, {"pattern", "^[1-9][0-9]*\\.\\.[1-9][0-9]*$"}},
                 list_of(number("integer", info))});
}
OrderedJson kind(const Pattern*, const Info& info) {
  return any_of({kNothing,
                 {{"type", "object"},
                  {"propertyNames", {{"minLength", 1}}},
                  {"additionalProperties", number(info.whole ? "integer" : "number", info)}}});
}
OrderedJson kind(const FieldNames*, const Info&) {
  OrderedJson names = OrderedJson::array();
  for (const char* name : kFieldsOfRows) names.push_back(name);
  for (const char* name : kFieldsOfTurns) names.push_back(name);
  return any_of(
      {kNothing, {{"type", "object"}, {"propertyNames", {{"enum", names}}}, {"additionalProperties", text()}}});
}
OrderedJson kind(const std::vector<DataFile>*, const Info&) { return data_files(true); }
OrderedJson kind(const Validation*, const Info&) {
  OrderedJson share = object({{"share", {{"type", "number"}, {"exclusiveMinimum", 0}, {"exclusiveMaximum", 1}}}});
  share["required"] = {"share"};
  return any_of({kNothing, data_files(false), share});
}
template <Choice E>
OrderedJson kind(const E*, const Info& info) {
  return {{"enum", info.allowed}};
}
template <typename T>
OrderedJson kind(const std::optional<T>*, const Info& info) {
  return any_of({kind(static_cast<const T*>(nullptr), info), kNothing});
}

// What the reader has where the key is not given.
template <typename T>
std::optional<OrderedJson> default_of(const T& value) {
  if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, int64_t> || std::is_same_v<T, double> ||
                std::is_same_v<T, std::vector<double>>)
    return OrderedJson(value);
  if constexpr (std::is_same_v<T, std::string>) return value.empty() ? std::nullopt : std::optional(OrderedJson(value));
  if constexpr (std::is_same_v<T, TargetModules>) return OrderedJson(value.pattern);
  if constexpr (Choice<T>) return OrderedJson(word_of(value));
  return std::nullopt;
}

struct Schema {
  OrderedJson root = object(OrderedJson::object());
  OrderedJson* at = &root;  // the object of the section that is visited

  void section(const std::string& name) {
    at = &root;
    if (name.empty()) return;
    OrderedJson& section = root["properties"][name];
    section = object(OrderedJson::object());
    section["type"] = {"object", "null"};  // a section may stand empty
    at = &section;
  }
  template <typename T>
  void operator()(const char* name, const T& value, const Info& info) {
    OrderedJson schema = kind(&value, info);
    std::string help = info.help;
    for (const char* later : info.later)
      help += fmt::format("{} {}", later == info.later.front() ? "; later:" : ",", later);
    schema["description"] = help;
    if (const std::optional<OrderedJson> standard = default_of(value); standard && !info.required)
      schema["default"] = *standard;
    (*at)["properties"][name] = schema;
    if (info.required) (*at)["required"].push_back(name);
  }
};

// Both with a number: with none they are not given.
void exclude(OrderedJson& section, const char* a, const char* b) {
  const OrderedJson given = {{"type", "number"}};
  section["not"] = {{"required", {a, b}}, {"properties", {{a, given}, {b, given}}}};
}

}  // namespace

std::string recipe_schema() {
  Schema schema;
  Recipe().fields(schema);
  OrderedJson& sections = schema.root["properties"];
  exclude(sections["train"], "epochs", "max_steps");
  exclude(sections["optim"], "warmup_ratio", "warmup_steps");
  for (const auto& [name, section] : sections.items()) {
    if (!section.contains("required")) continue;
    section["type"] = "object";
    schema.root["required"].push_back(name);
  }
  OrderedJson whole = {{"$schema", "http://json-schema.org/draft-07/schema#"}, {"title", "Drover's recipe"}};
  whole.update(schema.root);
  return whole.dump(2) + "\n";
}

}  // namespace drover
