// tokenizer.json made up for a test and opened, and rows of the golden files.
#pragma once
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "tests/base/scratch_directory.h"

namespace drover {

using nlohmann::json;

// GPT-2's spelling of a byte.
inline std::string byte_spelling(int wanted) {
  int next = 256;
  for (int byte = 0;; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int code = printable ? byte : next++;
    if (byte != wanted) continue;
    if (code < 0x80) return std::string(1, static_cast<char>(code));
    return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
  }
}

inline json added_token(int id, const std::string& content, bool special = true) {
  return {{"id", id},        {"content", content},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", !special}, {"special", special}};
}

// Ids: bytes 0–255; "th" 256, "the" 257, "Ġthe" 258, "he" 259, "in" 260, "\n\n" 261; then the special tokens in the
// given order from 300 on.
inline json small_tokenizer(const std::vector<std::string>& specials) {
  json vocab = json::object(), added = json::array();
  for (int byte = 0; byte < 256; ++byte) vocab[byte_spelling(byte)] = byte;
  int id = 256;
  const std::string space = byte_spelling(' '), newline = byte_spelling('\n');
  for (const std::string& token :
       {std::string("th"), std::string("the"), space + "the", std::string("he"), std::string("in"), newline + newline})
    vocab[token] = id++;
  for (size_t i = 0; i < specials.size(); ++i) added.push_back(added_token(300 + static_cast<int>(i), specials[i]));
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", json::array({"t h", "th e", space + " the", "h e", "i n", newline + " " + newline})}}}};
}

inline Tokenizer open_with(const ScratchDirectory& dir, const json& tokenizer, const json& config = nullptr) {
  write_text(dir / "tokenizer.json", tokenizer.dump());
  fs::remove(dir / "tokenizer_config.json");
  if (!config.is_null()) write_text(dir / "tokenizer_config.json", config.dump());
  return Tokenizer::open(dir.path());
}

inline std::vector<json> golden_rows(const std::string& name) {
  std::ifstream in(std::string(DROVER_SOURCE_DIR) + "/tests/golden/" + name);
  std::vector<json> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(json::parse(line));
  return rows;
}

}  // namespace drover
