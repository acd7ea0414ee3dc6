#include "model/files/gguf_tokenizer.h"

#include <array>
#include <set>

#include "kernels/base/json.h"
#include "model/files/gguf_pre_tokenizer.h"

namespace drover {

namespace {

constexpr int64_t kControl = 3, kUserDefined = 4, kUnused = 5;

struct Vocabulary {
  const std::vector<std::string>& tokens;
  const std::vector<int64_t>& types;
  bool added(size_t id) const { return types[id] == kControl || types[id] == kUserDefined; }
  // A row of the embedding without a token, as llama.cpp's converter fills up with.
  bool unused(size_t id) const { return types[id] == kUnused && tokens[id] == fmt::format("[PAD{}]", id); }
};

OrderedJson byte_level(bool add_prefix_space, bool trim_offsets, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", trim_offsets},
          {"use_regex", use_regex}};
}

OrderedJson added_token(const Vocabulary& vocabulary, size_t id) {
  return {{"content", vocabulary.tokens[id]},
          {"single_word", false},
          {"lstrip", false},
          {"rstrip", false},
          {"normalized", false},
          {"special", vocabulary.types[id] == kControl}};
}

// Puts the BOS before every text, as Llama 3's own tokenizer.json does.
OrderedJson bos_processor(const std::string& bos, int64_t id) {
  const auto special = [&](int type) { return OrderedJson{{"SpecialToken", {{"id", bos}, {"type_id", type}}}}; };
  const auto sequence = [](const char* name, int type) {
    return OrderedJson{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  const OrderedJson tokens = {
      {bos, {{"id", bos}, {"ids", OrderedJson::array({id})}, {"tokens", OrderedJson::array({bos})}}}};
  const OrderedJson process = {
      {"type", "TemplateProcessing"},
      {"single", OrderedJson::array({special(0), sequence("A", 0)})},
      {"pair", OrderedJson::array({special(0), sequence("A", 0), special(1), sequence("B", 1)})},
      {"special_tokens", tokens}};
  return {{"type", "Sequence"}, {"processors", OrderedJson::array({byte_level(true, false, true), process})}};
}

// "left right"; a piece of a byte-level vocabulary has no space in it.
void check_merge(const std::string& merge, const std::set<std::string>& known, const std::string& where) {
  const size_t space = merge.find(' ');
  const std::string left = merge.substr(0, space), right = space == std::string::npos ? "" : merge.substr(space + 1);
  for (const std::string& piece : {left, right, left + right}) {
    if (known.count(piece) != 0) continue;
    fail(Fault::bad_data, "{}: tokenizer.ggml.merges has \"{}\", whose piece \"{}\" is no token", where,
         clipped(merge, 60), clipped(piece, 60));
  }
}

// The model's text is joined piece by piece: an ordered object of 100 000 tokens would take minutes.
std::string model_text(const Vocabulary& vocabulary, const std::vector<std::string>& merges, bool ignore_merges,
                       size_t vocabulary_size) {
  std::string text =
      R"({"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,)"
      R"("fuse_unk":false,"byte_fallback":false,"ignore_merges":)";
  text += ignore_merges ? "true,\"vocab\":{" : "false,\"vocab\":{";
  const char* between = "";
  for (size_t id = 0; id < vocabulary_size; ++id) {
    if (vocabulary.unused(id)) continue;
    text += fmt::format("{}\n{}:{}", between, Json(vocabulary.tokens[id]).dump(), id);
    between = ",";
  }
  text += "},\"merges\":[";
  for (size_t i = 0; i < merges.size(); ++i) text += fmt::format("{}\n{}", i == 0 ? "" : ",", Json(merges[i]).dump());
  return text + "]}";
}

Vocabulary read_vocabulary(const GgufFile& file, const ModelConfig& config) {
  const std::string where = file.path().string();
  const Vocabulary vocabulary{file.texts("tokenizer.ggml.tokens"), file.integers("tokenizer.ggml.token_type")};
  if (vocabulary.tokens.size() != static_cast<size_t>(config.vocab) ||
      vocabulary.types.size() != vocabulary.tokens.size()) {
    fail(Fault::bad_data, "{}: {} tokens and {} token types for a vocabulary of {}", where, vocabulary.tokens.size(),
         vocabulary.types.size(), config.vocab);
  }
  return vocabulary;
}

// The text of a special token that the file names by id, or null.
OrderedJson special_token(const GgufFile& file, const Vocabulary& vocabulary, const std::string& key) {
  const int64_t id = file.integer("tokenizer.ggml." + key, -1);
  if (id < 0 || id >= static_cast<int64_t>(vocabulary.tokens.size())) return nullptr;
  return vocabulary.tokens[static_cast<size_t>(id)];
}

void check_merges(const Vocabulary& vocabulary, const std::vector<std::string>& merges, const std::string& where) {
  std::set<std::string> known(vocabulary.tokens.begin(), vocabulary.tokens.end());
  if (known.size() != vocabulary.tokens.size())
    fail(Fault::bad_data, "{}: tokenizer.ggml.tokens has a token twice", where);
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.unused(id)) known.erase(vocabulary.tokens[id]);
  }
  for (const std::string& merge : merges) check_merge(merge, known, where);
}

std::string tokenizer_text(const GgufFile& file, const Vocabulary& vocabulary) {
  const std::string where = file.path().string(), name = file.text("tokenizer.ggml.pre", "default");
  const GgufPreTokenizer* pre = gguf_pre_tokenizer(name);
  if (pre == nullptr) {
    fail(Fault::bad_data, "{}: tokenizer.ggml.pre is \"{}\"; allowed are {}", where, clipped(name),
         gguf_pre_tokenizer_names());
  }
  const auto& merges = file.texts("tokenizer.ggml.merges");
  check_merges(vocabulary, merges, where);

  // Added tokens at the end stand apart from the vocabulary, as in Llama 3's own file; elsewhere they must hold their
  // place in it.
  size_t own = vocabulary.tokens.size();
  while (own > 0 && (vocabulary.added(own - 1) || vocabulary.unused(own - 1))) --own;
  OrderedJson added = OrderedJson::array();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (!vocabulary.added(id)) continue;
    OrderedJson with_id = {{"id", id}};
    with_id.update(added_token(vocabulary, id));
    added.push_back(with_id);
  }

  const OrderedJson bos = special_token(file, vocabulary, "bos_token_id");
  // Where the file does not say, llama.cpp puts the BOS before Llama 3's texts and not before SmolLM's.
  const bool add_bos = file.flag("tokenizer.ggml.add_bos_token", pre->adds_bos) && !bos.is_null();
  const OrderedJson post = add_bos ? bos_processor(bos.get<std::string>(), file.integer("tokenizer.ggml.bos_token_id"))
                                   : OrderedJson(nullptr);
  return fmt::format(
      "{{\"version\":\"1.0\",\n\"truncation\":null,\n\"padding\":null,\n\"added_tokens\":{},\n\"normalizer\":null,"
      "\n\"pre_tokenizer\":{},\n"
      "\"post_processor\":{},\n\"decoder\":{},\n\"model\":{}}}\n",
      added.dump(), pre->pre_tokenizer.dump(), post.dump(), byte_level(true, true, true).dump(),
      model_text(vocabulary, merges, pre->ignore_merges, own));
}

std::string tokenizer_config_text(const GgufFile& file, const Vocabulary& vocabulary, const ModelConfig& config) {
  OrderedJson decoder = OrderedJson::object();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.added(id)) decoder[std::to_string(id)] = added_token(vocabulary, id);
  }
  OrderedJson settings = {{"added_tokens_decoder", decoder},
                          {"add_prefix_space", false},
                          {"bos_token", special_token(file, vocabulary, "bos_token_id")}};
  if (file.has("tokenizer.chat_template")) settings["chat_template"] = file.text("tokenizer.chat_template");
  settings["clean_up_tokenization_spaces"] = false;
  settings["eos_token"] = special_token(file, vocabulary, "eos_token_id");
  settings["model_max_length"] = config.max_positions;
  settings["pad_token"] = special_token(file, vocabulary, "padding_token_id");
  settings["tokenizer_class"] = "PreTrainedTokenizerFast";
  settings["unk_token"] = special_token(file, vocabulary, "unknown_token_id");
  return settings.dump(2) + "\n";
}

std::string generation_config_text(const GgufFile& file, const Vocabulary& vocabulary, const ModelConfig& config) {
  OrderedJson generation = {{"_from_model_config", true}};
  if (config.bos >= 0) generation["bos_token_id"] = config.bos;
  if (config.eos.size() == 1) generation["eos_token_id"] = config.eos[0];
  if (config.eos.size() > 1) generation["eos_token_id"] = config.eos;
  if (!special_token(file, vocabulary, "padding_token_id").is_null())
    generation["pad_token_id"] = file.integer("tokenizer.ggml.padding_token_id");
  return generation.dump(2) + "\n";
}

}  // namespace

TokenizerFiles gguf_tokenizer(const GgufFile& file, const ModelConfig& config) {
  const std::string model = file.text("tokenizer.ggml.model");
  if (model != "gpt2") {
    fail(Fault::bad_data, "{}: tokenizer.ggml.model is \"{}\"; allowed is gpt2 (byte-level BPE)", file.path().string(),
         clipped(model));
  }
  const Vocabulary vocabulary = read_vocabulary(file, config);
  return {.tokenizer = tokenizer_text(file, vocabulary),
          .tokenizer_config = tokenizer_config_text(file, vocabulary, config),
          .generation_config = generation_config_text(file, vocabulary, config)};
}

}  // namespace drover
