// What trains, for those who need not know what it is: named slices in flat fp32 buffers. The optimizer updates the
// buffers, a checkpoint saves them by name, the model names the slices and keeps its own copies for computing.
#pragma once
#include <span>
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "kernels/slice.h"

namespace drover {

class Trainables {
 public:
  // `slices` in the model's order, laid out by `lay_out`. Buffers: parameters from `parameters`, uninitialised;
  // gradients and moments from `optimizer`, zero, where it is given: without it nothing trains.
  Trainables(std::vector<Slice> slices, Backend& backend, Arena& parameters, Arena* optimizer);

  std::span<const Slice> slices() const { return slices_; }  // in the model's order: by layer
  int64_t size() const { return size_; }                     // elements of a flat buffer
  int64_t whole_size() const { return whole_size_; }         // of them in whole slices, which lie first

  // Consecutive elements that are of one group and one kind, whole or split.
  struct Run {
    int group = 0;
    int64_t offset = 0, size = 0;
  };
  std::span<const Run> runs() const { return runs_; }  // in order; together they are the buffer

  Tensor parameters, gradients, moment1, moment2;  // (size) f32; the last three are empty where nothing trains

 private:
  std::vector<Slice> slices_;
  std::vector<Run> runs_;
  int64_t size_ = 0, whole_size_ = 0;
};

}  // namespace drover
