// JSON from strangers: valid UTF-8, at most 64 levels deep, no key twice in one object, a bounded number of values.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "kernels/base/error.h"

namespace drover {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;  // finds a key by walking all of them: for small objects only

inline constexpr size_t kJsonDepth = 64;
inline constexpr size_t kJsonValues = 2'000'000;
inline constexpr size_t kOrderedJsonKeys = 1'000;  // of one object

// bad_data with `where` (a file's name) and the place in the text.
Json parse_json(std::string_view text, const std::string& where);
OrderedJson parse_ordered_json(std::string_view text, const std::string& where);

// The levels of lists and objects in a text that need not be JSON. Values that are nested deeply are copied and printed
// by recursion, which ends at the stack's end: whoever parses by other means looks at this first.
size_t json_depth(std::string_view text);

// At most `limit` bytes of a stranger's text, cut at a character, for messages.
std::string clipped(std::string_view text, size_t limit = 120);

bool is_utf8(std::string_view text);  // so that it can stand in JSON

const char* type_name(const Json& value);  // "a number", "a list", … for messages

}  // namespace drover
