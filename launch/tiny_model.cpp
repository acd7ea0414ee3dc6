#include "launch/tiny_model.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "kernels/base/hash.h"
#include "kernels/base/log.h"
#include "kernels/base/philox.h"
#include "model/config.h"
#include "model/files/safetensors_writer.h"
#include "model/files/staged_directory.h"
#include "model/weight_table.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

std::string character_of_byte(int byte) {  // GPT-2's printable stand-ins
  int code = byte;
  if (!((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += !((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174);
  }
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

constexpr const char* kSpecial[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

ordered_json tokenizer_json() {
  ordered_json vocab, added = ordered_json::array();
  for (int i = 0; i < 3; ++i) {
    added.push_back({{"id", i},
                     {"content", kSpecial[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
    vocab[kSpecial[i]] = i;
  }
  for (int byte = 0; byte < 256; ++byte) vocab[character_of_byte(byte)] = byte + 3;
  const ordered_json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "Sequence"}, {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, byte_level}}}},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", ordered_json::array()}}}};
}

}  // namespace

void make_tiny_model(const fs::path& directory, uint64_t seed) {
  if (fs::exists(directory / "model.safetensors")) return log::info("{} is there already", directory.string());
  ModelConfig c;
  c.hidden = 64, c.layers = 4, c.heads = 8, c.kv_heads = 4, c.head_dim = 12, c.ffn = 160, c.vocab = 259,
  c.max_positions = 1024;
  c.bos = 1, c.eos = {2}, c.rope_scaling = RopeScaling{8, 1, 4, 64};
  if (directory.has_parent_path()) make_directories(directory.parent_path());
  StagedDirectory staged{directory};
  write_text(staged.path() / "config.json", write_model_config(c));
  write_text(staged.path() / "tokenizer.json", tokenizer_json().dump(1));
  const std::string chat =
      "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
      "'\\n'}}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
  write_text(staged.path() / "tokenizer_config.json", ordered_json{{"bos_token", "<|im_start|>"},
                                                                   {"eos_token", "<|im_end|>"},
                                                                   {"chat_template", chat},
                                                                   {"tokenizer_class", "PreTrainedTokenizerFast"}}
                                                          .dump(1));
  write_text(staged.path() / "generation_config.json", ordered_json{{"bos_token_id", 1}, {"eos_token_id", 2}}.dump(1));

  std::map<std::string, ParamSpec> specs;
  std::vector<TensorSpec> tensors;
  for (const ParamSpec& spec : weight_table(c)) {
    specs[spec.name] = spec;
    tensors.push_back({spec.name, StoredType::bf16,
                       spec.cols == 1 ? std::vector<int64_t>{spec.rows} : std::vector<int64_t>{spec.rows, spec.cols}});
  }
  SafetensorsWriter writer(staged.path() / "model.safetensors", tensors);
  for (const TensorSpec& tensor : writer.order()) {
    const ParamSpec& spec = specs.at(tensor.name);
    const PhiloxKey key = PhiloxKey::of(sha256_prefix(fmt::format("{}:{}", seed, tensor.name)));
    const float offset = spec.cols == 1 ? 1.0f : 0.0f, scale = (spec.cols == 1 ? 0.2f : 0.1f) * std::sqrt(12.0f);
    std::vector<bf16> values(static_cast<size_t>(spec.rows * spec.cols));
    for (size_t i = 0; i < values.size(); ++i) values[i] = bf16(offset + (philox_uniform(key, i) - 0.5f) * scale);
    writer.write(tensor.name, values.data(), static_cast<int64_t>(values.size() * sizeof(bf16)));
  }
  writer.commit();
  staged.commit();
  log::info("{} holds a made-up model drawn from the seed {}; it knows nothing", directory.string(), seed);
}

}  // namespace drover
