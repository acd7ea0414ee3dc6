#include "model/generation/kv_pool.h"

namespace drover {

KvPool::KvPool(const Stage& stage, Arena& arena, int64_t blocks) : blocks_(blocks) {
  require(blocks > 0, "a pool has blocks");
  cache_.block_size = kBlockTokens;
  for (const Block& block : stage.blocks()) {
    const int64_t width = block.attention.kv_heads * block.attention.head_dim;
    cache_.layers.push_back(
        {.k = arena.tensor(tokens(), width, stage.dtype()), .v = arena.tensor(tokens(), width, stage.dtype())});
  }
  for (int64_t b = blocks; b-- > 0;) free_.push_back(static_cast<int32_t>(b));
}

bool KvPool::reserve(CachedSequence& sequence, int64_t tokens) {
  const int64_t more = blocks_for(tokens) - static_cast<int64_t>(sequence.blocks.size());
  if (more > free_blocks()) return false;
  for (int64_t i = 0; i < more; ++i) {
    sequence.blocks.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void KvPool::release(CachedSequence& sequence) {
  for (size_t i = sequence.blocks.size(); i-- > 0;) give_back(sequence.blocks[i]);
  sequence = {};
}

void KvPool::give_back(int32_t block) {
  free_.push_back(block);
  require(free_blocks() <= blocks_, "a block is given back once");
}

}  // namespace drover
