#include "model/stage.h"

namespace drover {

Stage::Stage(const StageShape& shape, const Loading& loading)
    : config_(shape.config),
      placement_(shape.placement),
      dtype_(shape.dtype),
      tp_(&loading.tp),
      provider_(&loading.provider),
      share_(vocabulary_share(config_.vocab, placement_.tp_rank, placement_.tp_size)) {
  lowest_adapted_layer_ = loading.adapter == nullptr ? config_.layers : lowest_adapted_layer(loading.adapter->layout());
  WeightLoader loader(shape, loading);
  if (placement_.first) embedding_ = loader.vocabulary("model.embed_tokens.weight");
  for (int64_t layer = placement_.layer_begin; layer < placement_.layer_end; ++layer) {
    blocks_.push_back(loader.block(layer, blocks_.size()));
  }
  if (placement_.last) {
    const Norm final_norm = loader.norm("model.norm.weight");
    if (config_.tied_head && embedding_ == nullptr) embedding_ = loader.vocabulary("model.embed_tokens.weight");
    head_ = Head{final_norm, loader.head(embedding_), share_, tp_};
  }
  rope_ = loader.rope();
}

void Stage::attach(int slot, AdapterSet& adapter) {
  for (Block& block : blocks_) {
    for (LinearGroup* group : {&block.qkv, &block.o, &block.gate_up, &block.down}) group->attach(slot, adapter);
  }
  if (head_) head_->linear.attach(slot, adapter);
}

void Stage::detach(int slot) {
  for (Block& block : blocks_) {
    for (LinearGroup* group : {&block.qkv, &block.o, &block.gate_up, &block.down}) group->detach(slot);
  }
  if (head_) head_->linear.detach(slot);
}

void Stage::embed(Context& ctx, Tensor x) const {
  ctx.backend.embedding(ctx.ids, *embedding_, share_.begin, share_.valid, x);
  tp_->all_reduce(x);
}

Stage::Saved Stage::saved(Arena& arena, int64_t tokens, KeepPolicy keep) const {
  Saved saved{.keep = keep, .blocks = {}};
  for (const Block& block : blocks_) {
    if (layer_of(block) < lowest_adapted_layer_) continue;
    saved.blocks.push_back(keep == KeepPolicy::all ? block.saved(arena, tokens, dtype_)
                                                   : Block::Saved{.x = arena.tensor(tokens, config_.hidden, dtype_)});
  }
  return saved;
}

Task Stage::forward(Context& ctx, Tensor x, const Saved& saved) const {
  const size_t first_kept = blocks_.size() - saved.blocks.size();
  if (!blocks_.empty()) provider_->acquire(0);
  for (const Block& block : blocks_) {
    if (block.index + 1 < blocks_.size()) provider_->acquire(block.index + 1);
    const HeldWeights weights(*provider_, block.index);
    Frame frame(ctx.scratch);
    Block::Saved s;
    const bool kept = block.index >= first_kept, input_only = kept && saved.keep == KeepPolicy::inputs;
    if (kept) s = saved.blocks[block.index - first_kept].rows_from(ctx.begin, x.rows);
    if (input_only) ctx.backend.copy(x, s.x);
    if (!kept || input_only) s = block.saved(ctx.scratch, x.rows, dtype_);
    co_await block.forward(ctx, x, s);
  }
}

Task Stage::backward(Context& ctx, Tensor dx, const Saved& saved) const {
  const size_t first_kept = blocks_.size() - saved.blocks.size();
  if (first_kept < blocks_.size()) provider_->acquire(blocks_.size() - 1);
  for (size_t i = blocks_.size(); i-- > first_kept;) {
    if (i > first_kept) provider_->acquire(i - 1);
    const HeldWeights weights(*provider_, i);
    const Block& block = blocks_[i];
    Frame frame(ctx.scratch);
    Block::Saved s = saved.blocks[i - first_kept].rows_from(ctx.begin, dx.rows);
    if (saved.keep == KeepPolicy::inputs) {
      const Tensor x = frame.tensor(dx.rows, dx.cols, dtype_);
      ctx.backend.copy(s.x, x);
      s = block.saved(ctx.scratch, dx.rows, dtype_);
      co_await block.forward(ctx, x, s);
    }
    const Reach reach = layer_of(block) == lowest_adapted_layer_ ? lowest_adapted_group(block) : Reach::input;
    co_await block.backward(ctx, dx, s, reach);
  }
}

}  // namespace drover
