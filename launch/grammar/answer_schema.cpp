#include "launch/grammar/answer_schema.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <set>
#include <string_view>
#include <vector>

namespace drover {

namespace {

using Words = std::vector<std::string_view>;

// Of one schema with all its parts. A reader of schemas may call itself once for each part.
constexpr size_t kParts = 1'000;
constexpr int64_t kMostItems = 1'000, kMostCharacters = 1'000;
constexpr size_t kValues = 1'000;  // of all enums
constexpr size_t kPatternBytes = 200;
constexpr int64_t kPatternRepeats = 1'000;  // of all counts of a pattern, multiplied

const Words& not_held_to() {
  static const Words words = {"not",
                              "if",
                              "then",
                              "else",
                              "dependentRequired",
                              "dependentSchemas",
                              "dependencies",
                              "patternProperties",
                              "propertyNames",
                              "minProperties",
                              "maxProperties",
                              "unevaluatedProperties",
                              "unevaluatedItems",
                              "additionalItems",
                              "uniqueItems",
                              "contains",
                              "minContains",
                              "maxContains",
                              "multipleOf",
                              "$dynamicRef",
                              "$recursiveRef",
                              "$anchor",
                              "$dynamicAnchor"};
  return words;
}

// Words that stand for a whole schema: what else the schema says would have to hold too.
constexpr std::array<std::string_view, 6> kWhole = {"$ref", "const", "enum", "anyOf", "oneOf", "allOf"};

// What is said of values of one type.
struct OfType {
  std::string_view type;
  Words words;
};
const std::vector<OfType>& of_types() {
  static const std::vector<OfType> all = {
      {"object", {"properties", "required", "additionalProperties"}},
      {"array", {"items", "prefixItems", "minItems", "maxItems"}},
      {"string", {"minLength", "maxLength", "pattern"}},
      {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}},
  };
  return all;
}

bool fits_type(const OrderedJson& value, std::string_view type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "integer") return value.is_number_integer();
  return type == "number" && value.is_number();
}

// The largest count of {m,n}, at most just above what is allowed.
int64_t count_at(const std::string& pattern, size_t brace) {
  const size_t end = pattern.find('}', brace), comma = pattern.find(',', brace);
  const int64_t low = std::strtoll(pattern.c_str() + brace + 1, nullptr, 10);
  const int64_t high = comma < end ? std::strtoll(pattern.c_str() + comma + 1, nullptr, 10) : 0;
  return std::clamp<int64_t>(std::max(low, high), 1, kPatternRepeats + 1);
}

class Reader {
 public:
  Reader(bool open, const std::string& where) : open_(open), where_(where) {}

  OrderedJson read(const OrderedJson& schema) {
    OrderedJson whole = part(schema, "#");
    check_references();
    return whole;
  }

 private:
  template <typename... Args>
  [[noreturn]] void refuse(const std::string& at, fmt::format_string<Args...> format, Args&&... args) const {
    fail(Fault::bad_data, "{}: the schema at {}: {}", where_, clipped(at),
         fmt::format(format, std::forward<Args>(args)...));
  }

  OrderedJson part(const OrderedJson& schema, const std::string& at);
  void add_types(OrderedJson& schema, const std::string& at) const;
  void check_whole(const OrderedJson& schema, std::string_view word, const std::string& at);
  void check_values(const OrderedJson& schema, std::string_view word, const std::string& at) const;
  void check_strings(const OrderedJson& schema, const std::string& at) const;
  void check_pattern(const std::string& pattern, const std::string& at) const;
  void check_count(const OrderedJson& schema, const char* word, int64_t most, const std::string& at) const;
  void close_object(OrderedJson& schema, const std::string& at) const;
  void read_parts(OrderedJson& schema, const std::string& at);
  void check_references() const;

  bool open_;
  const std::string& where_;
  std::set<std::string> parts_;
  size_t values_ = 0;
  // Parts that a part stands for, without a value of its own around them.
  std::map<std::string, std::vector<std::string>> stands_for_;
};

// Where no type is said, what is said of a type's values makes them the only ones.
void Reader::add_types(OrderedJson& schema, const std::string& at) const {
  std::string_view implied;
  for (const auto& [type, words] : of_types()) {
    for (const std::string_view word : words) {
      if (!schema.contains(word)) continue;
      if (!implied.empty() && implied != type)
        refuse(at, "it speaks of an {} and a {}; give it a \"type\"", implied, type);
      implied = type;
    }
  }
  if (!implied.empty()) schema["type"] = implied;
}

void Reader::check_values(const OrderedJson& schema, std::string_view word, const std::string& at) const {
  if (!schema.contains("type")) return;
  const OrderedJson &type = schema["type"], &said = schema[std::string(word)];
  const OrderedJson values = word == "const" ? OrderedJson::array({said}) : said;
  for (const OrderedJson& value : values) {
    const auto fits = [&](const OrderedJson& t) { return t.is_string() && fits_type(value, t.get<std::string>()); };
    if (type.is_array() ? !std::ranges::any_of(type, fits) : !fits(type)) {
      refuse(at, "the value {} is not of its type {}", clipped(value.dump()), clipped(type.dump()));
    }
  }
}

void Reader::check_whole(const OrderedJson& schema, std::string_view word, const std::string& at) {
  const bool values = word == "const" || word == "enum";
  for (const std::string_view other : kWhole) {
    if (other != word && schema.contains(other)) refuse(at, "{} and {} in one schema are not supported", word, other);
  }
  if (!values && schema.contains("type")) refuse(at, "{} with a type next to it is not supported", word);
  for (const auto& [type, words] : of_types()) {
    for (const std::string_view other : words) {
      if (schema.contains(other)) refuse(at, "{} with {} next to it is not supported", word, other);
    }
  }
  const OrderedJson& said = schema[std::string(word)];
  if (word == "$ref") {
    if (!said.is_string()) refuse(at, "$ref is {}, not a text", type_name(Json(said)));
    stands_for_[at].push_back(said.get<std::string>());
    return;
  }
  if (word != "const" && (!said.is_array() || said.empty())) refuse(at, "{} wants a list that is not empty", word);
  if (word == "enum") values_ += said.size();
  if (values_ > kValues) fail(Fault::bad_data, "{}: the schema's enums have more than {} values", where_, kValues);
  if (values) return check_values(schema, word, at);
  if (word == "allOf" && said.size() != 1) refuse(at, "allOf of more than one schema is not supported");
  for (size_t i = 0; i < said.size(); ++i) stands_for_[at].push_back(fmt::format("{}/{}/{}", at, word, i));
}

void Reader::check_count(const OrderedJson& schema, const char* word, int64_t most, const std::string& at) const {
  if (!schema.contains(word)) return;
  const OrderedJson& said = schema[word];
  if (!said.is_number_integer() || said < 0 || said > most) {
    refuse(at, "{} is {}; it may be a whole number from 0 to {}", word, clipped(said.dump()), most);
  }
}

// Patterns are taken for the whole text, and character by character for what stands in the JSON: what would have to be
// escaped there cannot be asked for. A pattern's size is what its counts make of it.
void Reader::check_pattern(const std::string& pattern, const std::string& at) const {
  if (pattern.size() > kPatternBytes) {
    refuse(at, "its pattern has {} bytes; {} are the most", pattern.size(), kPatternBytes);
  }
  int64_t repeats = 1;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i], next = i + 1 < pattern.size() ? pattern[i + 1] : '\0';
    if (c == '"' || static_cast<unsigned char>(c) < 0x20) {
      refuse(at, "its pattern has a character that JSON escapes, which is not supported");
    } else if (c == '\\') {
      if (next == '\0' || std::string_view("dDwWsS./()[]{}+*?|^$-").find(next) == std::string_view::npos) {
        refuse(at, "its pattern has \\{}, which is not supported", clipped(std::string(1, next)));
      }
      ++i;
    } else if (in_class) {
      in_class = c != ']';
    } else if (c == '[') {
      in_class = true;
    } else if (c == '(' && next == '?' && pattern.compare(i, 3, "(?:") != 0) {
      refuse(at, "its pattern looks ahead, behind, or names a group, which is not supported");
    } else if ((c == '^' && i > 0) || (c == '$' && next != '\0')) {
      refuse(at, "its pattern has a {} within, which is not supported", c);
    } else if (c == '{') {
      repeats *= count_at(pattern, i);
      if (repeats > kPatternRepeats) refuse(at, "the counts of its pattern multiply to more than {}", kPatternRepeats);
    }
  }
}

void Reader::check_strings(const OrderedJson& schema, const std::string& at) const {
  check_count(schema, "minLength", kMostCharacters, at);
  check_count(schema, "maxLength", kMostCharacters, at);
  const bool counted = schema.contains("minLength") || schema.contains("maxLength");
  for (const char* word : {"pattern", "format"}) {
    if (!schema.contains(word)) continue;
    if (!schema[word].is_string()) refuse(at, "{} is {}, not a text", word, type_name(Json(schema[word])));
    if (counted) refuse(at, "{} together with minLength or maxLength is not supported", word);
  }
  if (!schema.contains("pattern")) return;
  if (schema.contains("format")) refuse(at, "pattern together with format is not supported");
  check_pattern(schema["pattern"].get<std::string>(), at);
}

void Reader::close_object(OrderedJson& schema, const std::string& at) const {
  const bool listed = schema.contains("properties");
  if (!schema.contains("additionalProperties")) schema["additionalProperties"] = open_ || !listed;
  if (!listed) schema["properties"] = OrderedJson::object();
  OrderedJson& properties = schema["properties"];
  if (!properties.is_object()) refuse(at, "properties is {}, not an object", type_name(Json(properties)));
  if (!schema.contains("required")) return;
  if (!schema["required"].is_array()) refuse(at, "required is no list");
  const OrderedJson& further = schema["additionalProperties"];
  for (const OrderedJson& name : schema["required"]) {
    if (!name.is_string()) refuse(at, "required lists {}, not a text", type_name(Json(name)));
    const std::string& key = name.get_ref<const std::string&>();
    if (properties.contains(key)) continue;
    if (further == false) refuse(at, "\"{}\" is required and may not be there", clipped(key));
    properties[key] = further.is_object() ? further : OrderedJson::object();
  }
}

void Reader::read_parts(OrderedJson& schema, const std::string& at) {
  for (const char* word : {"properties", "$defs", "definitions"}) {
    if (!schema.contains(word)) continue;
    if (!schema[word].is_object()) refuse(at, "{} is {}, not an object", word, type_name(Json(schema[word])));
    for (auto& [name, value] : schema[word].items()) value = part(value, fmt::format("{}/{}/{}", at, word, name));
  }
  for (const char* word : {"anyOf", "oneOf", "allOf", "prefixItems"}) {
    if (!schema.contains(word)) continue;
    if (!schema[word].is_array()) refuse(at, "{} is no list", word);
    size_t i = 0;
    for (OrderedJson& value : schema[word]) value = part(value, fmt::format("{}/{}/{}", at, word, i++));
  }
  for (const char* word : {"items", "additionalProperties"}) {
    if (!schema.contains(word) || schema[word].is_boolean()) continue;
    schema[word] = part(schema[word], fmt::format("{}/{}", at, word));
  }
}

OrderedJson Reader::part(const OrderedJson& given, const std::string& at) {
  parts_.insert(at);
  if (parts_.size() > kParts) fail(Fault::bad_data, "{}: the schema has more than {} parts", where_, kParts);
  if (given.is_boolean() && given == true) return OrderedJson::object();
  if (!given.is_object())
    refuse(at, "it is {}; a schema is an object", given == false ? "false" : type_name(Json(given)));
  OrderedJson schema = given;
  for (const std::string_view word : not_held_to()) {
    if (!schema.contains(word) || schema[std::string(word)] == false) continue;
    refuse(at, "{} is not supported: an answer could not be held to it", word);
  }
  const auto whole = std::ranges::find_if(kWhole, [&](std::string_view word) { return schema.contains(word); });
  if (whole != kWhole.end()) {
    check_whole(schema, *whole, at);
  } else {
    if (!schema.contains("type")) add_types(schema, at);
    const auto is = [&](std::string_view type) {
      if (!schema.contains("type")) return false;
      const OrderedJson& said = schema["type"];
      return said == type || (said.is_array() && std::ranges::find(said, type) != said.end());
    };
    if (schema.contains("type") && schema["type"].is_array() && schema["type"].empty()) refuse(at, "it has no type");
    if (is("string")) check_strings(schema, at);
    if (is("object")) close_object(schema, at);
    if (is("array")) {
      check_count(schema, "minItems", kMostItems, at);
      check_count(schema, "maxItems", kMostItems, at);
      if (!schema.contains("items") && !schema.contains("prefixItems")) schema["items"] = OrderedJson::object();
    }
  }
  read_parts(schema, at);
  return schema;
}

void Reader::check_references() const {
  for (const auto& [at, targets] : stands_for_) {
    for (const std::string& target : targets) {
      if (parts_.contains(target) && target.find_first_of("~%") == std::string::npos) continue;
      refuse(at, "there is no schema at {}; references lead to a place in the same schema, for example #/$defs/NAME",
             clipped(target));
    }
  }
  // A part that stands for itself, over however many others, is no value.
  std::map<std::string, int> state;  // 1: under way, 2: done
  const auto visit = [&](const auto& self, const std::string& at) -> void {
    int& mine = state[at];
    if (mine == 2) return;
    if (mine == 1) refuse(at, "it stands for itself");
    mine = 1;
    if (const auto found = stands_for_.find(at); found != stands_for_.end()) {
      for (const std::string& target : found->second) self(self, target);
    }
    state[at] = 2;
  };
  for (const auto& [at, targets] : stands_for_) visit(visit, at);
}

}  // namespace

OrderedJson answer_schema(const OrderedJson& schema, bool open, const std::string& where) {
  return Reader(open, where).read(schema);
}

}  // namespace drover
