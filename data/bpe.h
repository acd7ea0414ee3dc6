// Byte-pair encoding over bytes, as in GPT-2. data/character_bpe.h is the one over characters.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "data/merges.h"
#include "data/piece_cache.h"

namespace drover {

class Bpe {
 public:
  using Merge = drover::Merge;
  // tokens: (bytes, id). With `whole_first` a piece that is a token is that token, whatever the merges say
  // (ignore_merges of Llama 3). A byte that is no token gives none and its neighbours meet, as in Hugging Face's
  // (SmolLM2 lacks 21 bytes).
  Bpe(const std::vector<std::pair<std::string, int32_t>>& tokens, const std::vector<Merge>& merges, bool whole_first);
  // Merges as tiktoken implies them: any two tokens whose bytes together are a token, by that token's id.
  static std::vector<Merge> implied_merges(const std::vector<std::pair<std::string, int32_t>>& tokens);

  bool knows_all_bytes() const;

  // Appends the piece's ids and, where `begins` is given, the offset of each one's first byte plus `offset`.
  void encode(std::string_view piece, std::vector<int32_t>& ids, std::vector<size_t>* begins = nullptr,
              size_t offset = 0) const;

 private:
  Merges merges_;
  PieceCache known_;
  std::unordered_map<std::string, int32_t> whole_;
  std::array<int32_t, 256> byte_ids_;  // -1: no token
};

}  // namespace drover
