// Byte-pair encoding over bytes: the pair with the lowest merge rank is joined first, leftmost among equals. O(n log n)
// in the piece's length. Source: Sennrich et al. 2016; byte level as in GPT-2.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace drover {

class Bpe {
 public:
  struct Merge {
    int32_t left = 0, right = 0, joined = 0;  // ids
  };
  // tokens: (bytes, id). Earlier merges bind tighter. With `whole_first` a piece that is a token is that token,
  // whatever the merges say (ignore_merges of Llama 3). A byte that is no token gives none and its neighbours meet, as
  // in Hugging Face's (SmolLM2 lacks 21 bytes).
  Bpe(const std::vector<std::pair<std::string, int32_t>>& tokens, const std::vector<Merge>& merges, bool whole_first);
  // Merges as tiktoken implies them: any two tokens whose bytes together are a token, by that token's id.
  static std::vector<Merge> implied_merges(const std::vector<std::pair<std::string, int32_t>>& tokens);

  bool knows_all_bytes() const;

  // Appends the piece's ids and, where `begins` is given, the offset of each one's first byte plus `offset`.
  void encode(std::string_view piece, std::vector<int32_t>& ids, std::vector<size_t>* begins = nullptr,
              size_t offset = 0) const;

 private:
  struct Joined {
    int32_t rank = 0, id = 0;
  };
  const Joined* joined(int32_t left, int32_t right) const;

  std::unordered_map<uint64_t, Joined> merges_;  // by (left, right)
  std::unordered_map<std::string, int32_t> whole_;
  std::array<int32_t, 256> byte_ids_;  // -1: no token
};

}  // namespace drover
