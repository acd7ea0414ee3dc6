// One optimizer step: the micro-batches' gradients are summed over the global batch, their norm clips them, and AdamW
// updates every group of parameters at its rate. Source: Loshchilov & Hutter 2019, in the order of torch.optim.AdamW;
// clipping as torch.nn.utils.clip_grad_norm_.
#pragma once
#include <vector>

#include "optim/grad_norm.h"
#include "optim/gradient_sum.h"
#include "optim/learning_rate.h"

namespace drover {

struct OptimizerSettings {
  LearningRate learning_rate;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  double max_grad_norm = 1;         // 0: gradients are not clipped
  std::vector<double> group_rates;  // by Slice::group, as a multiple of learning_rate; 1 for a group that is not listed
};

class Optimizer {
 public:
  // `layers`: how many slices may name. `arena` holds what lasts: the clip factor, and the tree of a deterministic sum.
  // `scratch` is used within `update` only.
  Optimizer(const OptimizerSettings& settings, const Accumulation& accumulation, Trainables& trainables, int64_t layers,
            Mesh& mesh, Backend& backend, Arena& arena, Arena& scratch);

  // A step: start, add_micro_batch behind each backward (`index` in the global batch, ascending), sum, update. All of
  // them enqueue; none waits.
  void start() { sum_.start(); }
  void add_micro_batch(int64_t index) { sum_.add_micro_batch(index); }
  void sum() { sum_.finish(); }  // gradients := their sum over the global batch
  // Of the update `step`, from 1. Where a norm is not finite, nothing is updated, by this step and by all later ones.
  PendingNorm update(int64_t step);  // → the norm before clipping

 private:
  struct Update {
    double rate = 1;  // as a multiple of the learning rate
    int64_t offset = 0, size = 0;
  };
  OptimizerSettings settings_;
  Trainables& trainables_;
  Mesh& mesh_;
  Backend& backend_;
  Arena& scratch_;
  GradientSum sum_;
  GradNorm norm_;
  std::vector<Update> updates_;
  Tensor factor_;  // (1) f32: of clipping; NaN from the first norm on that is not finite
};

}  // namespace drover
