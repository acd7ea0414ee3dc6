// The part of the model that a rank holds: consecutive blocks, with the embedding on the first stage and the head on
// the last.
#pragma once
#include <memory>
#include <optional>

#include "model/head.h"
#include "model/weight_loader.h"

namespace drover {

// Of each block: all that its backward reads, or only its input, from which backward computes the rest again. Of inputs
// a tp rank keeps its share of the rows; the ranks' shares are brought together where a block is computed again.
enum class KeepPolicy : uint8_t { all, inputs };

class Stage {
 public:
  Stage(const StageShape& shape, const Loading& loading);  // allocates and loads the weights of this placement

  // Rows of `slot` have this adapter from now on (LinearGroup::attach).
  void attach(int slot, AdapterSet& adapter);
  void detach(int slot);

  const ModelConfig& config() const { return config_; }
  const Placement& placement() const { return placement_; }
  const std::vector<Block>& blocks() const { return blocks_; }
  const RopeTable& rope() const { return rope_; }
  const std::optional<Head>& head() const { return head_; }
  DType dtype() const { return dtype_; }
  int64_t max_positions() const { return rope_.cosine.rows; }

  // What backward needs of the blocks that it reaches, which are the uppermost of the stage; none: nothing is kept.
  struct Saved {
    KeepPolicy keep = KeepPolicy::all;
    std::vector<Block::Saved> blocks;
  };
  Saved saved(Arena& arena, int64_t tokens, KeepPolicy keep) const;  // of a micro-batch

  void embed(Context& ctx, Tensor x) const;  // x (T,D); first stage only
  // Through all blocks. x (T,D): the residual stream, updated in place.
  Task forward(Context& ctx, Tensor x, const Saved& saved) const { return forward_together({{&ctx, x, &saved}}); }
  // Through the blocks of `saved`. dx (T,D): d loss/d y in, d loss/d x out, where somebody below wants it.
  Task backward(Context& ctx, Tensor dx, const Saved& saved) const { return backward_together({{&ctx, dx, &saved}}); }

  // A micro-batch on its way through the blocks; x: dx on the way back.
  struct Passage {
    Context* ctx;
    Tensor x;
    const Saved* saved;
  };
  // Several, of which each passes a block before any passes the next one: a block's weights come once for all.
  Task forward_together(std::vector<Passage> group) const;
  Task backward_together(std::vector<Passage> group) const;  // what is saved of them is of the same blocks

 private:
  Range own_rows(int64_t rows) const;  // of the rows of an input, which are kept here
  Tensor kept_rows(Tensor kept, const Context& ctx, int64_t rows) const;  // where they lie
  void keep_input(Context& ctx, Tensor x, Tensor kept) const;
  Task bring_back(Context& ctx, Tensor kept, Tensor x) const;
  Task forward_through(const Block& block, Passage p) const;
  Task backward_through(const Block& block, Passage p) const;
  size_t first_kept(const Saved& saved) const { return blocks_.size() - saved.blocks.size(); }
  int64_t layer_of(const Block& block) const { return placement_.layer_begin + static_cast<int64_t>(block.index); }

  ModelConfig config_;
  Placement placement_;
  DType dtype_;
  int64_t lowest_adapted_layer_ = 0;  // of the whole model
  Communicator* tp_;
  WeightProvider* provider_;
  std::shared_ptr<const Weight> embedding_;  // (V/tp rounded up, D) on the first stage, and on the last when tied
  VocabularyShare share_;
  RopeTable rope_;
  std::vector<Block> blocks_;
  std::optional<Head> head_;
};

}  // namespace drover
