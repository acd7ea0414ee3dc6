// ‖g‖ = √Σ g² over all that trains on all ranks, in fp64. Squares are summed layer by layer, of each layer in the
// model's order, and layers are added in order: the bits depend neither on where a pipeline stage ends nor on how the
// flat buffer is laid out.
#pragma once
#include <map>
#include <memory>

#include "kernels/comm/mesh.h"
#include "optim/trainables.h"

namespace drover {

// A norm on its way to the host.
class PendingNorm {
 public:
  explicit PendingNorm(std::unique_ptr<Reading> squares) : squares_(std::move(squares)) {}
  double value();  // waits; not finite where a gradient is not

 private:
  std::unique_ptr<Reading> squares_;
};

class GradNorm {
 public:
  GradNorm(const Trainables& trainables, int64_t layers);  // layers: how many slices may name
  // squares (1) f64 := Σ g², the same on every rank; whole slices are equal on all tensor-parallel ranks and count
  // once. `scratch` holds a layer's gradients.
  void sum_squares(Mesh& mesh, Backend& backend, Arena& scratch, Tensor squares) const;

 private:
  // One layer's slices of one kind, in the model's order.
  struct Part {
    struct Run {
      int64_t offset = 0, size = 0;
    };
    std::vector<Run> runs;  // slices that lie one behind the other are one run
    int64_t size = 0;
  };
  Tensor side_by_side(const Part& part, Backend& backend, Arena& scratch) const;

  const Trainables& trainables_;
  int64_t layers_;
  std::map<int64_t, Part> whole_, split_;  // by layer
};

}  // namespace drover
