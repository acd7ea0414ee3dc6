#include "kernels/base/json.h"

#include <unordered_set>
#include <vector>

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

namespace {

template <typename Any>
Any parse(std::string_view text, const std::string& where, size_t limit) {
  std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open
  size_t values = 0;
  const auto guard = [&](int depth, typename Any::parse_event_t event, Any& parsed) {
    using Event = typename Any::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) {
      if (depth >= static_cast<int>(kJsonDepth)) {
        fail(Fault::bad_data, "{}: JSON nested more than {} levels deep", where, kJsonDepth);
      }
      if (event == Event::object_start) keys.emplace_back();
    } else if (event == Event::object_end) {
      keys.pop_back();
    } else if (event == Event::key) {
      const auto& key = parsed.template get_ref<const std::string&>();
      if (!keys.back().insert(key).second) {
        fail(Fault::bad_data, "{}: the key \"{}\" stands twice in one object", where, clipped(key));
      }
    }
    if (++values > limit) fail(Fault::bad_data, "{}: JSON of more than {} values", where, limit);
    return true;
  };
  try {
    return Any::parse(text.begin(), text.end(), guard);
  } catch (const typename Any::exception& error) {
    const std::string_view message = error.what();
    const size_t prefix = message.find("] ");
    fail(Fault::bad_data, "{}: not valid JSON: {}", where,
         clipped(prefix == std::string_view::npos ? message : message.substr(prefix + 2), 240));
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where) { return parse<Json>(text, where, kJsonValues); }

OrderedJson parse_ordered_json(std::string_view text, const std::string& where) {
  return parse<OrderedJson>(text, where, kOrderedJsonValues);
}

}  // namespace drover
