// What a request may say, as data: each field's type and range, and those that are known and refused. Requests are
// checked by these tables (fields.h), and openapi.json is made from them.
#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/base/json.h"

namespace drover::openai {

enum class FieldKind : uint8_t {
  integer,
  number,
  boolean,
  text,
  object,
  objects,    // a list of them
  texts,      // a text, or a list of texts
  token_ids,  // a list of integers
  biases,     // an object: token id → number
  prompt,     // a text, texts, ids, lists of ids
  content,    // a text, a list of parts, or null
  choice,     // a text of `choices`, or an object
  any,
};

struct FieldTable;

struct Field {
  std::string name;
  FieldKind kind;
  std::string about;  // one sentence or less, for openapi.json
  // Of an integer, the bytes of a text (of each, where there are several), or the entries of a list or object.
  int64_t low = 0, high = std::numeric_limits<int64_t>::max();
  double least = 0, most = 0;             // of a number
  int64_t most_entries = 0;               // of `texts`
  const FieldTable* of = nullptr;         // fields of the object, or of each in the list; null: any
  std::vector<std::string> choices = {};  // of a text; empty: all
  std::string punctuation = {};           // where set, a text has letters, digits and these only
  bool required = false;
  bool ignored = false;  // taken for what it is, and changes no answer
};

// A field that clients send and that is not supported: absent, null, or neutral.
struct Refused {
  std::string name;
  std::string instead;                    // what to do
  std::vector<OrderedJson> neutral = {};  // values that ask for nothing
};

struct FieldTable {
  std::string name;  // in openapi.json
  std::vector<Field> fields;
  std::vector<Refused> refused = {};

  const Field* find(const std::string& name) const;
};

// A path, and what it takes and gives.
struct Endpoint {
  std::string method, path, about;
  std::vector<const FieldTable*> bodies;  // one of these; none: no body
  std::string answer;                     // its media type, or "" where nothing is in the body
};

// Limits of the request fields, for whoever plans memory.
inline constexpr int64_t kMostAnswers = 16, kMostStops = 16, kLongestStop = 1000, kMostLogprobs = 20;
inline constexpr int64_t kMostBiases = 300, kMostPrompts = 1024, kMostTools = 128;

const FieldTable& chat_table();
const FieldTable& message_table();
const FieldTable& content_part_table();
const FieldTable& call_table();
const FieldTable& called_function_table();
const FieldTable& tool_table();
const FieldTable& function_table();
const FieldTable& response_format_table();
const FieldTable& json_schema_table();
const FieldTable& tool_choice_table();
const FieldTable& chosen_function_table();
const FieldTable& stream_options_table();
const FieldTable& completion_table();
const FieldTable& tokenize_text_table();
const FieldTable& tokenize_chat_table();
const FieldTable& detokenize_table();
const FieldTable& load_adapter_table();
const FieldTable& unload_adapter_table();

const std::vector<Endpoint>& endpoints();

}  // namespace drover::openai
