#include "optim/optimizer.h"

namespace drover {

Optimizer::Optimizer(const OptimizerSettings& settings, const Accumulation& accumulation, Trainables& trainables,
                     int64_t layers, Mesh& mesh, Backend& backend, Arena& arena, Arena& scratch)
    : settings_(settings),
      trainables_(trainables),
      mesh_(mesh),
      backend_(backend),
      scratch_(scratch),
      sum_(trainables.gradients, trainables.whole_size(), mesh, backend, arena, accumulation),
      norm_(trainables, layers),
      factor_(arena.tensor(1, 1, DType::f32)) {
  backend.zero(factor_);
  for (const Trainables::Run& run : trainables.runs()) {
    const size_t group = static_cast<size_t>(run.group);
    const double rate = group < settings.group_rates.size() ? settings.group_rates[group] : 1;
    if (updates_.empty() || updates_.back().rate != rate) updates_.push_back({rate, run.offset, 0});
    updates_.back().size += run.size;
  }
}

PendingNorm Optimizer::update(int64_t step) {
  Frame frame(scratch_);
  Tensor squares = frame.tensor(1, 1, DType::f64);
  norm_.sum_squares(mesh_, backend_, scratch_, squares);
  backend_.clip_factor(squares, static_cast<float>(settings_.max_grad_norm), factor_);
  for (const Update& u : updates_) {
    const AdamW adamw{.learning_rate = settings_.learning_rate.at(step - 1) * u.rate,
                      .beta1 = settings_.beta1,
                      .beta2 = settings_.beta2,
                      .eps = settings_.eps,
                      .weight_decay = settings_.weight_decay,
                      .step = step};
    const auto part = [&](Tensor flat) { return flat.rows_from(u.offset, u.size); };
    const Trainables& t = trainables_;
    backend_.adamw(adamw, factor_, part(t.gradients), part(t.parameters), part(t.moment1), part(t.moment2));
  }
  return PendingNorm(backend_.read_later(squares));
}

}  // namespace drover
