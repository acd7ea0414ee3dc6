// Reads Meta's tokenizer.model of Llama 3: a line for each token, its bytes in base64 and its rank, which is its id.
// The special tokens follow from 128000 on; they stand in no file and have here their names in Llama 3.1.
#include <openssl/evp.h>

#include <charconv>
#include <set>

#include "data/tokenizer.h"
#include "kernels/base/error.h"
#include "kernels/base/json.h"
#include "kernels/base/program.h"

namespace drover {

namespace {

constexpr int32_t kRanks = 128000, kSpecials = 256;

std::optional<std::string> from_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  std::string bytes(text.size(), '\0');
  const int length =
      EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                      reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  if (length < 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  bytes.resize(static_cast<size_t>(length) - padding);
  return bytes;
}

std::vector<std::string> special_names() {
  std::vector<std::string> names = {"<|begin_of_text|>",
                                    "<|end_of_text|>",
                                    "<|reserved_special_token_0|>",
                                    "<|reserved_special_token_1|>",
                                    "<|finetune_right_pad_id|>",
                                    "<|reserved_special_token_2|>",
                                    "<|start_header_id|>",
                                    "<|end_header_id|>",
                                    "<|eom_id|>",
                                    "<|eot_id|>",
                                    "<|python_tag|>"};
  for (int i = 3; names.size() < kSpecials; ++i) names.push_back(fmt::format("<|reserved_special_token_{}|>", i));
  return names;
}

// SentencePiece's begins with a piece: a field of bytes (10), their length, and of these the first (10 again).
void refuse_sentence_piece(const fs::path& file, std::string_view text) {
  const bool is_one = text.size() > 3 && text[0] == '\n' && text[2] == '\n';
  if (!is_one) return;
  const std::string directory = shell_quoted(file.parent_path().string());
  fail(Fault::bad_data,
       "{} is SentencePiece's file, which is not read; write a tokenizer.json next to it with transformers (and "
       "sentencepiece): python3 -c 'import sys, transformers as t; "
       "t.AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])' {}",
       file.string(), directory);
}

}  // namespace

Tokenizer::Definition Tokenizer::read_ranks(const fs::path& file, const std::string& text, const Config& config) {
  refuse_sentence_piece(file, text);
  std::vector<std::pair<std::string, int32_t>> tokens;
  std::set<std::string> seen;
  int64_t line_number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    ++line_number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const size_t space = std::min(line.find(' '), line.size() - 1);
    const auto bytes = from_base64(line.substr(0, space));
    int32_t rank = -1;
    const char* last = line.data() + line.size();
    const auto [stop, error] = std::from_chars(line.data() + space + 1, last, rank);
    const int32_t expected = static_cast<int32_t>(tokens.size());
    if (!bytes || error != std::errc() || stop != last || rank != expected) {
      fail(Fault::bad_data,
           "{}:{}: expected \"BASE64 {}\", a token's bytes and its rank; only the tokenizer.model of Llama 3 is read",
           file.string(), line_number, expected);
    }
    if (!seen.insert(*bytes).second)
      fail(Fault::bad_data, "{}:{}: this token stands on an earlier line already", file.string(), line_number);
    tokens.emplace_back(*bytes, rank);
  }
  if (static_cast<int32_t>(tokens.size()) != kRanks) {
    fail(Fault::bad_data, "{}: it holds {} tokens, Llama 3's tokenizer.model has {}; copy the file again",
         file.string(), tokens.size(), kRanks);
  }
  Definition d;
  for (const auto& [bytes, rank] : tokens) d.texts.set(rank, bytes);
  for (const std::string& name : special_names()) {
    d.added.push_back({name, kRanks + static_cast<int32_t>(d.added.size())});
    d.texts.set(d.added.back().id, name);
  }
  d.words =
      std::make_unique<ByteLevelWords>(PreTokenizer::Kind::llama3, Bpe(tokens, Bpe::implied_merges(tokens), true));
  const auto named = [&](const char* key, int32_t otherwise) {
    const auto name = config.named.find(key);
    if (name == config.named.end()) return otherwise;
    const auto a = std::ranges::find(d.added, name->second, &AddedToken::spelling);
    if (a == d.added.end()) {
      fail(Fault::bad_data, "{}: {} \"{}\" is none of Llama 3's special tokens", file.string(), key,
           clipped(name->second));
    }
    return a->id;
  };
  d.bos = named("bos_token", kRanks);
  d.eos = named("eos_token", kRanks + 1);
  if (config.adds_bos.value_or(true)) d.before = {*d.bos};
  if (config.adds_eos.value_or(false)) d.after = {*d.eos};
  return d;
}

}  // namespace drover
