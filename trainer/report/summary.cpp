#include "trainer/report/summary.h"

#include <algorithm>
#include <cmath>

#include "trainer/report/series_math.h"

namespace drover {

namespace {

std::string cause_of(const RunRecord& run, int64_t step, int64_t first) {
  const int64_t before = step - 1;
  std::vector<std::string> causes;
  if (step == first) causes.push_back("the first step recorded: memory and caches are touched for the first time");
  if (std::ranges::binary_search(run.traced_steps, step)) causes.push_back("it was traced");
  const auto answered = [&](const AnswersOfStep& answers) { return answers.step == before; };
  if (std::ranges::any_of(run.answers, answered)) causes.push_back(fmt::format("after the answers of step {}", before));
  if (run.validated_after(before)) causes.push_back(fmt::format("after the validation of step {}", before));
  if (run.saved_after(before)) causes.push_back(fmt::format("after the checkpoint of step {}", before));
  return causes.empty() ? "no cause is on record: look at what else the machine did"
                        : fmt::format("{}", fmt::join(causes, ", "));
}

void add_losses(const RunRecord& run, RunSummary& s) {
  const std::vector<double> loss = run.metrics.column(&StepRow::loss);
  s.smoothing = smoothing_window(loss.size());
  s.first_loss = first_of(loss);
  s.last_loss = last_of(smoothed(loss, s.smoothing));
  for (const ValidationRow& row : run.metrics.validations) {
    if (!std::isfinite(row.loss)) continue;
    if (!std::isfinite(s.first_validation)) s.first_validation = row.loss;
    if (!(row.loss >= s.best_validation)) s.best_validation = row.loss, s.best_step = row.step;
    s.last_validation = row.loss;
  }
}

void add_gradients(const RunRecord& run, RunSummary& s) {
  s.max_grad_norm = run.recipe.number("optim.max_grad_norm").value_or(0);
  const std::vector<double> norms = run.metrics.column(&StepRow::grad_norm);
  const int64_t known = counted(norms);
  if (!(s.max_grad_norm > 0) || known == 0) return;
  const auto clipped = std::ranges::count_if(norms, [&](double norm) { return norm > s.max_grad_norm; });
  s.clipped = static_cast<double>(clipped) / static_cast<double>(known);
}

void add_change(const AdapterChange& change, RunSummary& s) {
  double changed = 0, base = 0;
  for (const LinearChange& linear : change.linears) {
    changed += linear.change * linear.change;
    base += linear.base * linear.base;
  }
  s.change = std::sqrt(changed);
  s.relative_change = std::sqrt(changed / base);  // NaN where the base was not read
}

}  // namespace

std::vector<Stall> stalls_of(const RunRecord& run) {
  const std::vector<double> seconds = run.metrics.column(&StepRow::step_seconds);
  const double usual_of_all = median(seconds);
  std::vector<Stall> stalls;
  for (size_t i = 0; i < seconds.size() && seconds.size() > 2; ++i) {
    if (!(seconds[i] > kStallFactor * usual_of_all)) continue;  // most steps are not near it
    const size_t begin = i - std::min(i, kStallNeighbours), end = std::min(seconds.size(), i + kStallNeighbours + 1);
    const double usual = median(std::span(seconds).subspan(begin, end - begin));
    if (!(seconds[i] > kStallFactor * usual)) continue;
    const int64_t step = run.metrics.steps[i].step;
    stalls.push_back({step, seconds[i], usual, cause_of(run, step, run.metrics.steps.front().step)});
  }
  return stalls;
}

RunSummary summary_of(const RunRecord& run) {
  RunSummary s{.steps = run.metrics.last_step()};
  add_losses(run, s);
  add_gradients(run, s);
  const MetricsSeries& metrics = run.metrics;
  s.learning_rate = most_of(metrics.column(&StepRow::learning_rate));
  s.tokens = sum_of(metrics.column(&StepRow::tokens));
  s.trained_tokens = sum_of(metrics.column(&StepRow::trained_tokens));
  s.seconds = sum_of(metrics.column(&StepRow::step_seconds));
  s.step_seconds = median(metrics.column(&StepRow::step_seconds));
  s.tokens_per_second = median(metrics.column(&StepRow::tokens_per_second));
  s.peak_bytes = most_of(metrics.column(&StepRow::peak_bytes));
  s.stalls = stalls_of(run);
  for (const Stall& stall : s.stalls) s.lost_seconds += stall.seconds - stall.usual;
  if (run.change) add_change(*run.change, s);
  return s;
}

}  // namespace drover
