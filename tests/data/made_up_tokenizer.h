// A tokenizer of bytes (id = byte, no merges) with ChatML's two control tokens 256 and 257, for tests that count ids.
#pragma once
#include <nlohmann/json.hpp>

#include "data/tokenizer.h"

namespace drover {

constexpr int32_t kImStart = 256, kImEnd = 257;

// `bos`: plain text starts with <|im_start|>. `spare` names one more token that no text gives, and so changes the
// fingerprint alone.
inline Tokenizer made_up_tokenizer(const fs::path& directory, bool control_tokens = true, bool bos = false,
                                   const std::string& spare = "") {
  using nlohmann::json;
  json vocab = json::object(), added = json::array();
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int code = printable ? byte : next++;
    std::string spelling(1, static_cast<char>(code));
    if (code >= 0x80) spelling = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    vocab[spelling] = byte;
  }
  const auto add = [&](int id, const std::string& name) {
    added.push_back({{"id", id}, {"content", name}, {"special", true}, {"normalized", false}});
  };
  if (control_tokens) {
    add(kImStart, "<|im_start|>");
    add(kImEnd, "<|im_end|>");
  }
  if (!spare.empty()) add(258, spare);
  json post;
  if (bos)
    post = {{"type", "TemplateProcessing"},
            {"single", json::array({{{"SpecialToken", {{"id", "<|im_start|>"}, {"type_id", 0}}}},
                                    {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}})},
            {"special_tokens", {{"<|im_start|>", {{"id", "<|im_start|>"}, {"ids", {kImStart}}}}}}};
  const json whole = {{"added_tokens", added},
                      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
                      {"post_processor", post},
                      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}};
  make_directories(directory);
  write_text(directory / "tokenizer.json", whole.dump());
  return Tokenizer::open(directory);
}

}  // namespace drover
