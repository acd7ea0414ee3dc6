#include "model/stage.h"

#include <algorithm>

#include "model/pending_sum.h"

namespace drover {

namespace {

int64_t share_rounded_up(int64_t rows, int ranks) { return (rows + ranks - 1) / ranks; }

}  // namespace

Stage::Stage(const StageShape& shape, const Loading& loading)
    : config_(shape.config),
      placement_(shape.placement),
      dtype_(shape.dtype),
      tp_(&loading.tp),
      provider_(loading.streamed != nullptr ? loading.streamed : &loading.provider),
      share_(vocabulary_share(config_.vocab, placement_.tp_rank, placement_.tp_size)) {
  lowest_adapted_layer_ = loading.adapter == nullptr ? config_.layers : lowest_adapted_layer(loading.adapter->layout());
  WeightLoader loader(shape, loading);
  if (placement_.first) embedding_ = loader.vocabulary("model.embed_tokens.weight");
  if (loading.streamed != nullptr) loader.make_ring();
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
  const int64_t kept = share_rounded_up(tokens, tp_->size()) + (tp_->size() > 1 ? 1 : 0);  // perhaps in two parts
  for (const Block& block : blocks_) {
    if (layer_of(block) < lowest_adapted_layer_) continue;
    saved.blocks.push_back(keep == KeepPolicy::all ? block.saved(arena, tokens, dtype_)
                                                   : Block::Saved{.x = arena.tensor(kept, config_.hidden, dtype_)});
  }
  return saved;
}

Range Stage::own_rows(int64_t rows) const {
  const int64_t share = share_rounded_up(rows, tp_->size()), begin = std::min(share * tp_->rank(), rows);
  return {begin, std::min(share, rows - begin)};
}

// A part of a micro-batch that begins at ctx.begin: behind what the parts before it take at most.
Tensor Stage::kept_rows(Tensor kept, const Context& ctx, int64_t rows) const {
  return kept.rows_from(share_rounded_up(ctx.begin, tp_->size()), own_rows(rows).count);
}

void Stage::keep_input(Context& ctx, Tensor x, Tensor kept) const {
  const Range own = own_rows(x.rows);
  if (own.count > 0) ctx.backend.copy(x.rows_from(own.begin, own.count), kept_rows(kept, ctx, x.rows));
}

// The other ranks' rows are 0 here and a sum brings them, so that it runs while another part computes, as all sums do.
Task Stage::bring_back(Context& ctx, Tensor kept, Tensor x) const {
  const Range own = own_rows(x.rows);
  const int64_t end = own.begin + own.count;
  if (own.begin > 0) ctx.backend.zero(x.rows_from(0, own.begin));
  if (own.count > 0) ctx.backend.copy(kept_rows(kept, ctx, x.rows), x.rows_from(own.begin, own.count));
  if (end < x.rows) ctx.backend.zero(x.rows_from(end, x.rows - end));
  PendingSum sum(ctx);
  sum.start(*tp_, x);
  co_await sum;
}

Task Stage::forward_through(const Block& block, Passage p) const {
  Context& ctx = *p.ctx;
  const size_t first = first_kept(*p.saved);
  Frame frame(ctx.scratch);
  Block::Saved s;
  const bool kept = block.index >= first, input_only = kept && p.saved->keep == KeepPolicy::inputs;
  if (input_only) keep_input(ctx, p.x, p.saved->blocks[block.index - first].x);
  if (kept && !input_only) s = p.saved->blocks[block.index - first].rows_from(ctx.begin, p.x.rows);
  if (!kept || input_only) s = block.saved(ctx.scratch, p.x.rows, dtype_);
  co_await block.forward(ctx, p.x, s);
}

Task Stage::backward_through(const Block& block, Passage p) const {
  Context& ctx = *p.ctx;
  const Block::Saved& kept = p.saved->blocks[block.index - first_kept(*p.saved)];
  Frame frame(ctx.scratch);
  Block::Saved s;
  if (p.saved->keep == KeepPolicy::inputs) {
    const Tensor x = frame.tensor(p.x.rows, p.x.cols, dtype_);
    co_await bring_back(ctx, kept.x, x);
    s = block.saved(ctx.scratch, p.x.rows, dtype_);
    co_await block.forward(ctx, x, s);
  } else {
    s = kept.rows_from(ctx.begin, p.x.rows);
  }
  const Reach reach = layer_of(block) == lowest_adapted_layer_ ? lowest_adapted_group(block) : Reach::input;
  co_await block.backward(ctx, p.x, s, reach);
}

Task Stage::forward_together(std::vector<Passage> group) const {
  if (!blocks_.empty()) provider_->acquire(0);
  for (const Block& block : blocks_) {
    if (block.index + 1 < blocks_.size()) provider_->acquire(block.index + 1);
    const HeldWeights weights(*provider_, block.index);
    for (const Passage& p : group) co_await forward_through(block, p);
  }
}

Task Stage::backward_together(std::vector<Passage> group) const {
  const size_t first = first_kept(*group.front().saved);
  if (first < blocks_.size()) provider_->acquire(blocks_.size() - 1);
  for (size_t i = blocks_.size(); i-- > first;) {
    if (i > first) provider_->acquire(i - 1);
    const HeldWeights weights(*provider_, i);
    for (const Passage& p : group) co_await backward_through(blocks_[i], p);
  }
}

}  // namespace drover
