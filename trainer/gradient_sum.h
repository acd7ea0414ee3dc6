// The sum of the micro-batches' gradients over accumulation and data parallelism, then over tensor parallelism for whole factors.
// Plain: micro-batches add into one buffer, and one all-reduce over dp follows. Deterministic: every micro-batch's gradient stands by itself and
// is added in a fixed binary tree over its index in the global batch (node (level, i) = node (level-1, 2i) + node (level-1, 2i+1); what is left over
// is folded from the last node to the first), so the bits do not depend on how the same micro-batches were dealt over accumulation, dp and pp.
#pragma once
#include <vector>

#include "kernels/comm/mesh.h"
#include "model/adapter.h"

namespace drover {

class GradientSum {
 public:
  // `arena` holds the tree's nodes (deterministic only): enough for `local_micro_batches` of this rank and for every rank's after the exchange.
  GradientSum(AdapterSet& adapter, Mesh& mesh, Backend& backend, Arena& arena, bool deterministic, int64_t local_micro_batches);

  void start();                        // before the first micro-batch of a step: gradients := 0
  void add_micro_batch(int64_t index);  // after each backward; `index` in the global batch, ascending
  void finish();                       // adapter.gradients := the whole sum

 private:
  struct Node {
    int level = 0;
    int64_t index = 0;
    Tensor sum;
  };
  static void merge_siblings(Backend& backend, std::vector<Node>& nodes);
  void push(int level, int64_t index, Tensor sum);

  AdapterSet& adapter_;
  Mesh& mesh_;
  Backend& backend_;
  bool deterministic_;
  std::vector<Tensor> local_buffers_;
  Tensor exchanged_;  // (dp · local buffers · n, 1)
  Tensor outgoing_;   // (local buffers · n, 1): this rank's part of it
  std::vector<Node> nodes_;
};

}  // namespace drover
