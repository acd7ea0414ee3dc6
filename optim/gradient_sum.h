// The sum of the micro-batches' gradients over accumulation and data parallelism, then over tensor parallelism for what
// every rank holds whole. Plain: micro-batches add into one buffer, and one all-reduce over dp follows. Deterministic:
// every micro-batch's gradient stands by itself and is added in a fixed binary tree over its index in the global batch
// (node (level, i) = node (level-1, 2i) + node (level-1, 2i+1); what is left over is folded from the last node to the
// first), so the bits do not depend on how the same micro-batches were dealt over accumulation, dp and pp.
#pragma once
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "kernels/comm/mesh.h"

namespace drover {

struct Accumulation {
  bool deterministic = false;
  int64_t local_micro_batches = 1;  // the most per rank and step
};

class GradientSum {
 public:
  // gradients (n) f32, of which the first `whole_size` elements are partial sums on every tensor-parallel rank. `arena`
  // holds the tree's nodes (deterministic only): enough for the micro-batches of this rank and for every rank's after
  // the exchange.
  GradientSum(Tensor gradients, int64_t whole_size, Mesh& mesh, Backend& backend, Arena& arena,
              const Accumulation& accumulation);

  void start();                         // before the first micro-batch of a step: gradients := 0
  void add_micro_batch(int64_t index);  // after each backward; `index` in the global batch, ascending
  void finish();                        // gradients := the whole sum

 private:
  struct Node {
    int level = 0;
    int64_t index = 0;
    Tensor sum;
  };
  static void merge_siblings(Backend& backend, std::vector<Node>& nodes);

  Tensor gradients_, whole_;
  Mesh& mesh_;
  Backend& backend_;
  bool deterministic_;
  std::vector<Tensor> local_buffers_;
  Tensor exchanged_;  // (dp · local buffers · n, 1)
  Tensor outgoing_;   // (local buffers · n, 1): this rank's part of it
  std::vector<Node> nodes_;
};

}  // namespace drover
