// Byte-pair encoding's merges: the pair with the lowest rank is joined first, leftmost among equals. O(n log n) in the
// number of symbols. Source: Sennrich et al. 2016.
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace drover {

struct Merge {
  int32_t left = 0, right = 0, joined = 0;  // ids
};

class Merges {
 public:
  struct Symbol {
    int32_t id = 0;
    uint32_t begin = 0;  // of its first byte in the piece
  };
  // Earlier merges bind tighter. Of two merges of the same pair the later counts, as in Hugging Face's map.
  explicit Merges(const std::vector<Merge>& merges);

  // Joins what can be joined; what is left stands in order.
  void join(std::vector<Symbol>& symbols) const;

 private:
  struct Joined {
    int32_t rank = 0, id = 0;
  };
  const Joined* joined(int32_t left, int32_t right) const;

  std::unordered_map<uint64_t, Joined> merges_;  // by (left, right)
};

}  // namespace drover
