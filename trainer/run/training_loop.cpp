#include "trainer/run/training_loop.h"

#include <chrono>
#include <cmath>
#include <utility>

#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "trainer/run/agreed_stop.h"
#include "trainer/run/process_memory.h"
#include "trainer/run/profile.h"
#include "trainer/run/step_trace.h"

namespace drover {

TrainingLoop::TrainingLoop(const Parts& parts, int64_t total_steps, int64_t done, int64_t saved)
    : p_(parts),
      progress_(parts.recipe.log.every_steps),
      check_(parts.plan.calibrated ? parts.plan.tokens_per_second : 0),
      total_steps_(total_steps),
      done_(done),
      saved_(saved) {
  p_.engine.on_progress([this] { p_.watchdog.beat(fmt::format("step {}", enqueued() + 1)); });
}

StopReason TrainingLoop::run() {
  const Recipe& recipe = p_.recipe;
  const auto due = [](int64_t step, int64_t every_steps) { return every_steps > 0 && step % every_steps == 0; };
  // After the first step that this run did not do: an earlier one may have been stopped in its validation.
  if (done_ == 0 || due(done_, recipe.eval.every_steps)) p_.validation.run(done_, progress_);
  note_stops();
  if (p_.timer != nullptr) p_.timer->start_over();
  const auto begin = std::chrono::steady_clock::now();
  const int64_t first_step = done_ + 1;
  while (done_ < total_steps_ && !stalls()) {
    if (const StopReason stop = stop_here(); stop != StopReason::none) return stop;
    if (enqueued() + 1 == first_step) p_.directory.replace_plan();
    enqueue();
    const bool validates = due(enqueued(), recipe.eval.every_steps);
    const bool saves = due(enqueued(), recipe.checkpoint.every_steps);
    // The device works on this step while the host prepares the next one, unless somebody waits for it.
    finish_steps(!backend().enqueues() || validates || saves || enqueued() == total_steps_ ? 0 : 1);
    if (validates) p_.validation.run(done_, progress_);
    const bool best = recipe.checkpoint.keep_best && validates && p_.validation.best().step == done_;
    if (saves || best) save();
  }
  progress_.finish();
  if (done_ < total_steps_) {
    const BestValidation& best = p_.validation.best();
    log::info("{} validations have not improved on {:.4f} after step {} (eval.stop_after): the run ends after step {}",
              best.since, best.loss, best.step, done_);
  }
  if (p_.timer != nullptr && done_ >= first_step) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    log::info("what rank 0's time was spent on, steps {} to {}:\n{}", first_step, done_,
              print_profile(p_.timer->times(), seconds));
  }
  const bool validated = p_.validation.run(done_, progress_);
  const StopReason stop = stop_here();
  return validated ? StopReason::none : stop;
}

bool TrainingLoop::stalls() const {
  const int64_t most = p_.recipe.eval.stop_after;
  return most > 0 && p_.validation.best().since >= most;
}

void TrainingLoop::enqueue() {
  std::unique_ptr<Moment> begin = backend().moment();  // now, or when the step in flight ends
  Batch batch;
  together(p_.world, [&] { batch = p_.loader.load(p_.loader.position_of(enqueued())); });
  const int64_t step = enqueued() + 1;
  std::optional<StepTrace> trace;
  if (p_.recipe.log.trace.contains(step)) trace.emplace(p_.engine, p_.timer, p_.messages);
  PendingStep pending = p_.engine.enqueue_step(batch, step);
  std::unique_ptr<Moment> end = backend().moment();  // before a trace is written
  if (trace) {
    p_.watchdog.beat(fmt::format("writing the trace of step {}", step));
    trace->write(p_.directory, step);
  }
  in_flight_.push_back({std::move(pending), std::move(begin), std::move(end), learning_rate().at(enqueued()),
                        batch.tokens, batch.trained_tokens});
}

// Waits for steps, and writes what they gave, until at most `kept` are in flight.
void TrainingLoop::finish_steps(size_t kept) {
  for (; in_flight_.size() > kept; in_flight_.pop_front(), ++done_) {
    InFlight& step = in_flight_.front();
    p_.watchdog.beat(fmt::format("step {}", done_ + 1));
    const StepResult result = step.pending.result();
    if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
      write_down(step, result);
      progress_.finish();
      const StreamPosition position = p_.loader.position_of(done_);
      fail(Fault::non_finite,
           "step {}: the loss is {} and the gradient norm {}{}. Lower optim.learning_rate, or look at the rows of this "
           "step (epoch {}, step {} of it); the last checkpoint is untouched",
           done_ + 1, result.loss, result.grad_norm, std::isfinite(result.grad_norm) ? "" : "; the update was not made",
           position.epoch + 1, position.step + 1);
    }
    write_down(step, result);
  }
}

void TrainingLoop::write_down(const InFlight& step, const StepResult& result) {
  const StepMetrics m{.step = done_ + 1,
                      .total_steps = total_steps_,
                      .loss = result.loss,
                      .grad_norm = result.grad_norm,
                      .learning_rate = step.learning_rate,
                      .tokens = step.tokens,
                      .trained_tokens = step.trained_tokens,
                      .step_seconds = step.begin->seconds_until(*step.end),
                      .peak_bytes = largest(p_.world, peak_bytes(backend())),
                      .planned_step_seconds = p_.plan.calibrated ? p_.plan.step_seconds : 0};
  const std::optional<std::string> far = check_.step(m.tokens, m.step_seconds);
  p_.directory.record([&](MetricsFile& metrics) {
    metrics.step(m);
    progress_.step(m);
    if (far) progress_.note(*far);
    if (!std::exchange(reported_, true) && !backend().report().empty()) progress_.note(backend().report());
  });
}

void TrainingLoop::save() {
  p_.save(done_);
  saved_ = done_;
}

void TrainingLoop::save_last() {
  if (saved_ != done_) save();
}

// Between two steps: whether a stop was asked for, or the records cannot be written. Then what was done is saved.
StopReason TrainingLoop::stop_here() {
  const StopReason stop = agreed_stop(p_.world);
  const std::optional<Error>& unrecorded = p_.directory.unrecorded();
  if (stop == StopReason::none && !unrecorded) return stop;
  finish_steps(0);
  progress_.finish();
  save_last();
  if (unrecorded) {
    fail(Fault::io,
         "{}. The run was saved after step {}, without what could not be written: start the same command again to go "
         "on",
         unrecorded->what(), done_);
  }
  return stop;
}

}  // namespace drover
