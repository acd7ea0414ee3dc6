// Keys and values of sequences that come and go, in a pool of equal blocks that lie anywhere: a sequence's list of
// blocks says where its positions are. Nothing is moved when another sequence ends. Source: Kwon et al. 2023
// (PagedAttention).
#pragma once
#include <vector>

#include "model/stage.h"

namespace drover {

// A sequence in a pool: position p lies in row blocks[p / KvPool::kBlockTokens] · kBlockTokens + p % kBlockTokens.
struct CachedSequence {
  std::vector<int32_t> blocks;
  int64_t tokens = 0;  // whose keys and values are there
};

class KvPool {
 public:
  static constexpr int64_t kBlockTokens = 16;
  static constexpr int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

  // For every layer of the stage `blocks` blocks of keys and of values, in the stage's dtype.
  KvPool(const Stage& stage, Arena& arena, int64_t blocks);

  // Gives the sequence the blocks that `tokens` tokens need in all; false, and nothing given, where too few are free.
  // Which blocks it gets depends on the calls before only.
  bool reserve(CachedSequence& sequence, int64_t tokens);
  void release(CachedSequence& sequence);  // gives all its blocks back; it is empty then
  void give_back(int32_t block);           // one that its sequence has no longer

  int64_t blocks() const { return blocks_; }
  int64_t free_blocks() const { return static_cast<int64_t>(free_.size()); }
  int64_t tokens() const { return blocks_ * kBlockTokens; }
  KvCache& cache() { return cache_; }

 private:
  int64_t blocks_;
  std::vector<int32_t> free_;  // the last one is given next
  KvCache cache_;
};

}  // namespace drover
