#include "optim/trainables.h"

#include <algorithm>

namespace drover {

Trainables::Trainables(std::vector<Slice> slices, Backend& backend, Arena& parameters_arena, Arena* optimizer)
    : slices_(std::move(slices)) {
  std::vector<const Slice*> order;
  for (const Slice& s : slices_) order.push_back(&s);
  std::ranges::sort(order, {}, [](const Slice* s) { return std::pair(s->offset, s->size()); });
  bool whole = true;
  for (const Slice* s : order) {
    require(s->offset == size_, "slices follow one another in the flat buffers");
    require(whole || !s->whole, "whole slices lie before those that are split");
    require(!s->whole || (s->row_count == s->rows && s->col_count == s->cols), "a whole slice is all of its matrix");
    if (runs_.empty() || runs_.back().group != s->group || whole != s->whole) runs_.push_back({s->group, size_, 0});
    runs_.back().size += s->size();
    whole = s->whole;
    size_ += s->size();
    if (whole) whole_size_ = size_;
  }
  require(std::ranges::is_sorted(slices_, {}, &Slice::layer), "slices come in the model's order");
  parameters = parameters_arena.tensor(size_, 1, DType::f32);
  if (optimizer == nullptr) return;
  for (Tensor* t : {&gradients, &moment1, &moment2}) {
    *t = optimizer->tensor(size_, 1, DType::f32);
    backend.zero(*t);
  }
}

}  // namespace drover
