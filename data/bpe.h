// Byte-pair encoding over bytes: the pair with the lowest merge rank is joined first, leftmost among equals. O(n log n) in the piece's length.
// Source: Sennrich et al. 2016; byte level as in GPT-2.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace drover {

class Bpe {
 public:
  // tokens: (bytes, id); every single byte must be one. Merges join two ids; earlier ones bind tighter. With `whole_first` a piece that is a
  // token is that token, whatever the merges say (ignore_merges of Llama 3).
  struct Merge {
    int32_t left = 0, right = 0, joined = 0;
  };
  Bpe(const std::vector<std::pair<std::string, int32_t>>& tokens, const std::vector<Merge>& merges, bool whole_first);
  // Merges as tiktoken implies them: any two tokens whose bytes together are a token, by that token's id.
  static std::vector<Merge> implied_merges(const std::vector<std::pair<std::string, int32_t>>& tokens);

  void encode(std::string_view piece, std::vector<int32_t>& ids) const;

 private:
  struct Joined {
    int32_t rank = 0, id = 0;
  };
  const Joined* joined(int32_t left, int32_t right) const;
  std::unordered_map<uint64_t, Joined> merges_;
  std::unordered_map<std::string, int32_t> whole_;
  int32_t byte_ids_[256];
};

}  // namespace drover
