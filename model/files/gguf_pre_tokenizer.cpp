#include "model/files/gguf_pre_tokenizer.h"

#include <vector>

namespace drover {

namespace {

constexpr const char* kLlama3Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

OrderedJson byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

OrderedJson sequence(const OrderedJson& first, const OrderedJson& second) {
  return {{"type", "Sequence"}, {"pretokenizers", OrderedJson::array({first, second})}};
}

const std::vector<GgufPreTokenizer>& table() {
  static const std::vector<GgufPreTokenizer> rows = {
      {"smollm", false, false, sequence({{"type", "Digits"}, {"individual_digits", true}}, byte_level(true))},
      {"llama-bpe", true, true,
       sequence(
           {{"type", "Split"}, {"pattern", {{"Regex", kLlama3Split}}}, {"behavior", "Isolated"}, {"invert", false}},
           byte_level(false))},
      {"gpt-2", false, false, byte_level(true)}};
  return rows;
}

// The steps one after the other, each with the values that tokenizers takes for absent ones, without what changes no
// id.
void add_steps(const Json& part, std::vector<Json>& steps) {
  if (!part.is_object()) return steps.push_back(part);
  if (part.value("type", Json()) == "Sequence") {
    for (const Json& step : part.value("pretokenizers", Json::array())) add_steps(step, steps);
    return;
  }
  Json step = part;
  if (step.value("type", Json()) == "ByteLevel") step = Json{{"add_prefix_space", true}, {"use_regex", true}};
  if (step.value("type", Json()) == "Digits") step = Json{{"individual_digits", false}};
  step.update(part);
  step.erase("trim_offsets");
  steps.push_back(std::move(step));
}

std::vector<Json> steps_of(const Json& pre_tokenizer) {
  std::vector<Json> steps;
  add_steps(pre_tokenizer, steps);
  return steps;
}

}  // namespace

const GgufPreTokenizer* gguf_pre_tokenizer(const std::string& name) {
  for (const GgufPreTokenizer& row : table()) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

const GgufPreTokenizer* gguf_pre_tokenizer(const Json& pre_tokenizer, bool ignore_merges) {
  const std::vector<Json> steps = steps_of(pre_tokenizer);
  for (const GgufPreTokenizer& row : table()) {
    if (row.ignore_merges == ignore_merges && steps_of(Json(row.pre_tokenizer)) == steps) return &row;
  }
  return nullptr;
}

std::string gguf_pre_tokenizer_names() {
  std::string names;
  for (size_t i = 0; i < table().size(); ++i)
    names += (i == 0 ? "" : i + 1 < table().size() ? ", " : " and ") + std::string(table()[i].name);
  return names;
}

}  // namespace drover
