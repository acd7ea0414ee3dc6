#include "launch/grammar/grammars.h"

#include <algorithm>
#include <set>

#include "launch/grammar/answer_schema.h"
#include "launch/grammar/grammar_library.h"

namespace drover {

namespace {

constexpr size_t kSpecBytes = size_t{256} << 10;
// In a row, between two tokens of JSON: enough to indent with, and a model that writes nothing else comes to an end.
constexpr int kSpaces = 16;

OrderedJson content_of(const OrderedJson& schema) {
  return {{"type", "json_schema"}, {"json_schema", schema}, {"max_whitespace_cnt", kSpaces}};
}

const OrderedJson& member(const OrderedJson& object, const char* key, const char* where) {
  if (!object.is_object() || !object.contains(key)) fail(Fault::bad_data, "{}: \"{}\" is missing", where, key);
  return object[key];
}

bool flag(const OrderedJson& object, const char* key, bool otherwise) {
  if (!object.contains(key) || object[key].is_null()) return otherwise;
  if (!object[key].is_boolean())
    fail(Fault::bad_data, "\"{}\" is {}; it may be true or false", key, object[key].dump());
  return object[key].get<bool>();
}

// {"name": NAME, "parameters": {…}}
OrderedJson call_of(const OrderedJson& tool, const std::string& name) {
  const OrderedJson& function = tool["function"];
  OrderedJson parameters = {{"type", "object"}, {"properties", OrderedJson::object()}};
  if (function.contains("parameters") && !function["parameters"].is_null()) parameters = function["parameters"];
  const std::string where = fmt::format("the parameters of the tool \"{}\"", clipped(name));
  parameters = answer_schema(parameters, !flag(function, "strict", true), where);
  if (!parameters.contains("type") || parameters["type"] != "object") {
    fail(Fault::bad_data, "{}: the schema's type is not \"object\"", where);
  }
  return {{"type", "tag"},
          {"begin", fmt::format("{{\"name\": {}, \"parameters\": ", OrderedJson(name).dump())},
          {"content", content_of(parameters)},
          {"end", "}"}};
}

OrderedJson calls_of(const OrderedJson& spec) {
  const OrderedJson& tools = member(spec, "tools", "a forced call");
  const bool named = spec.contains("name") && !spec["name"].is_null();
  if (!tools.is_array()) fail(Fault::bad_data, "the tools are no list");
  OrderedJson calls = OrderedJson::array();
  std::set<std::string> names;
  for (const OrderedJson& tool : tools) {
    const OrderedJson& name = member(member(tool, "function", "a tool"), "name", "a tool's function");
    if (!name.is_string()) fail(Fault::bad_data, "a tool's name is {}, not a text", type_name(Json(name)));
    if (!names.insert(name.get<std::string>()).second) {
      fail(Fault::bad_data, "two tools have the name \"{}\"", clipped(name.get<std::string>()));
    }
    if (!named || name == spec["name"]) calls.push_back(call_of(tool, name.get<std::string>()));
  }
  if (calls.empty() && named) fail(Fault::bad_data, "no tool has the name {}", clipped(spec["name"].dump()));
  if (calls.empty()) fail(Fault::bad_data, "a call is asked for, and there is no tool");
  return {{"type", "tags_with_separator"},
          {"tags", calls},
          {"separator", "; "},
          {"at_least_one", true},
          {"stop_after_first", !flag(spec, "parallel", false)}};
}

OrderedJson format_of(const OrderedJson& spec) {
  const OrderedJson& kind = member(spec, "kind", "a grammar");
  if (kind == "json_object") return content_of(answer_schema({{"type", "object"}}, true, "json_object"));
  if (kind == "json_schema") {
    return content_of(answer_schema(member(spec, "schema", "json_schema"), !flag(spec, "strict", true), "json_schema"));
  }
  if (kind == "tools") return calls_of(spec);
  fail(Fault::bad_data, "the grammar's kind is {}; allowed are json_object, json_schema and tools",
       clipped(kind.dump()));
}

// JSON has control characters between its tokens only, and line ends do for that; the library lets others into strings
// of a limited length.
bool is_raw_control(char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\r'; }

std::vector<std::string> bytes_of(const Tokenizer& tokenizer, int64_t vocab) {
  std::vector<std::string> tokens(static_cast<size_t>(vocab));
  for (int64_t i = 0; i < std::min(vocab, tokenizer.vocab_size()); ++i) {
    const int32_t id = static_cast<int32_t>(i);
    const std::string& bytes = tokenizer.raw_bytes(id);
    if (std::ranges::any_of(bytes, is_raw_control)) continue;
    if (!tokenizer.is_special(id) && id != tokenizer.unknown()) tokens[static_cast<size_t>(i)] = bytes;
  }
  return tokens;
}

}  // namespace

Grammars::Grammars(const Tokenizer& tokenizer, int64_t vocab)
    : library_(std::make_unique<GrammarLibrary>(bytes_of(tokenizer, vocab))) {}
Grammars::~Grammars() = default;

bool Grammars::available() { return !library().empty(); }
std::string Grammars::library() { return GrammarLibrary::name(); }

std::shared_ptr<TokenFilter> Grammars::filter(const std::string& spec, std::span<const int32_t> stop_ids) {
  if (spec.size() > kSpecBytes) {
    fail(Fault::bad_data, "the schemas have {} bytes; {} are the most", spec.size(), kSpecBytes);
  }
  const OrderedJson format = format_of(parse_ordered_json(spec, "the grammar that is asked for"));
  return library_->filter(OrderedJson({{"type", "structural_tag"}, {"format", format}}).dump(), stop_ids);
}

}  // namespace drover
