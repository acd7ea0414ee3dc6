#include "kernels/base/json.h"

#include <algorithm>
#include <unordered_set>
#include <vector>

#include "kernels/base/json_problem.h"

namespace drover {

std::string clipped(std::string_view text, size_t limit) {
  if (text.size() <= limit) return std::string(text);
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xc0) == 0x80) --limit;
  return std::string(text.substr(0, limit)) + "…";
}

bool is_utf8(std::string_view text) {
  try {
    Json(text).dump();
    return true;
  } catch (const Json::type_error&) {
    return false;
  }
}

const char* type_name(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null: return "null";
    case Json::value_t::boolean: return "true or false";
    case Json::value_t::string: return "a string";
    case Json::value_t::array: return "a list";
    case Json::value_t::object: return "an object";
    default: return "a number";
  }
}

size_t json_depth(std::string_view text) {
  size_t depth = 0, deepest = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return deepest;
}

namespace {

// What must hold before a value is built. (The parser's own callback would do, but with it a list of n objects takes
// n² steps.)
class Guard : public nlohmann::json_sax<Json> {
 public:
  Guard(const std::string& where, size_t keys) : where_(where), limit_(keys) {}

  bool null() override { return count(); }
  bool boolean(bool) override { return count(); }
  bool number_integer(number_integer_t) override { return count(); }
  bool number_unsigned(number_unsigned_t) override { return count(); }
  bool number_float(number_float_t, const string_t&) override { return count(); }
  bool string(string_t&) override { return count(); }
  bool binary(binary_t&) override { return count(); }
  bool start_object(size_t) override {
    keys_.emplace_back();
    return count();
  }
  bool key(string_t& key) override {
    if (!keys_.back().insert(key).second)
      fail(Fault::bad_data, "{}: the key \"{}\" stands twice in one object", where_, clipped(key));
    if (keys_.back().size() > limit_) fail(Fault::bad_data, "{}: an object of more than {} keys", where_, limit_);
    return count();
  }
  bool end_object() override {
    keys_.pop_back();
    return true;
  }
  bool start_array(size_t) override { return count(); }
  bool end_array() override { return true; }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error) override {
    fail(Fault::bad_data, "{}: not valid JSON: {}", where_, json_problem(error));
  }

 private:
  bool count() {
    if (++values_ > kJsonValues) fail(Fault::bad_data, "{}: JSON of more than {} values", where_, kJsonValues);
    return true;
  }

  const std::string& where_;
  size_t limit_, values_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;  // of the objects that are open
};

template <typename Any>
Any parse(std::string_view text, const std::string& where, size_t keys) {
  if (text.find('\0') != text.npos)  // which the parser takes for the end
    fail(Fault::bad_data, "{}: not valid JSON: it holds a byte of 0", where);
  if (json_depth(text) > kJsonDepth)
    fail(Fault::bad_data, "{}: JSON nested more than {} levels deep", where, kJsonDepth);
  Guard guard(where, keys);
  Json::sax_parse(text.begin(), text.end(), &guard);
  return Any::parse(text.begin(), text.end());
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where) { return parse<Json>(text, where, kJsonValues); }

OrderedJson parse_ordered_json(std::string_view text, const std::string& where) {
  return parse<OrderedJson>(text, where, kOrderedJsonKeys);
}

}  // namespace drover
