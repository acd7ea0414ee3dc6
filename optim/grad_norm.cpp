#include "optim/grad_norm.h"

#include <cmath>

namespace drover {

double PendingNorm::value() { return std::sqrt(squares_->values()[0]); }

GradNorm::GradNorm(const Trainables& trainables, int64_t layers) : trainables_(trainables), layers_(layers) {
  for (const Slice& s : trainables.slices()) {
    require(0 <= s.layer && s.layer < layers, "a slice's layer is one of those");
    Part& part = (s.whole ? whole_ : split_)[s.layer];
    if (part.runs.empty() || part.runs.back().offset + part.runs.back().size != s.offset)
      part.runs.push_back({s.offset, 0});
    part.runs.back().size += s.size();
    part.size += s.size();
  }
}

Tensor GradNorm::side_by_side(const Part& part, Backend& backend, Arena& scratch) const {
  const auto gradients = [&](const Part::Run& run) { return trainables_.gradients.rows_from(run.offset, run.size); };
  if (part.runs.size() == 1) return gradients(part.runs.front());
  Tensor all = scratch.tensor(part.size, 1, DType::f32);
  int64_t at = 0;
  for (const Part::Run& run : part.runs) {
    backend.copy(gradients(run), all.rows_from(at, run.size));
    at += run.size;
  }
  return all;
}

void GradNorm::sum_squares(Mesh& mesh, Backend& backend, Arena& scratch, Tensor squares) const {
  Frame frame(scratch);
  Tensor whole = frame.tensor(layers_, 1, DType::f64), split = frame.tensor(layers_, 1, DType::f64);
  for (Tensor t : {whole, split, squares}) backend.zero(t);
  for (const auto& [sums, parts] : {std::pair(whole, &whole_), std::pair(split, &split_)}) {
    for (const auto& [layer, part] : *parts) {
      Frame gathered(scratch);
      backend.sum_squares(side_by_side(part, backend, scratch), sums.rows_from(layer, 1));
    }
  }
  mesh.tp().all_reduce(split);
  backend.add(split, whole);
  mesh.pp().all_reduce(whole);  // every layer lies on one stage
  for (int64_t layer = 0; layer < layers_; ++layer) backend.add(whole.rows_from(layer, 1), squares);
}

}  // namespace drover
