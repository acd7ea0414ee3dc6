#include "trainer/report/advice.h"

#include <algorithm>
#include <cmath>

#include "trainer/report/series_math.h"

namespace drover {

namespace {

constexpr Thresholds kLimits = kThresholds;

std::string percent(double share) { return fmt::format("{:.3g} %", 100 * share); }

Advice overfit(const RunRecord& run, const RunSummary& s) {
  Advice a{.rule =
               fmt::format("Overfit: the last validation loss is {} or more above the lowest, {} or more validations "
                           "after it.",
                           percent(kLimits.overfit), kLimits.overfit_checks)};
  const auto after =
      std::ranges::count_if(run.metrics.validations, [&](const ValidationRow& row) { return row.step > s.best_step; });
  if (!std::isfinite(s.best_validation)) {
    a.seen = "There is no validation loss.";
    a.suggestion =
        "Give data.validation, {share: 0.05} for example: without it nobody sees when a run begins to learn "
        "by heart.";
    return a;
  }
  const double above = s.last_validation / s.best_validation - 1;
  a.seen = fmt::format("Lowest {:.4f} after step {}, last {:.4f}: {} above, {} validations later.", s.best_validation,
                       s.best_step, s.last_validation, percent(std::max(0.0, above)), after);
  if (above >= kLimits.overfit && after >= kLimits.overfit_checks) {
    a.suggestion = fmt::format(
        "Take the adapter of step {} (checkpoint.keep_best: true makes a run do so), end earlier (eval.stop_after: "
        "{}), "
        "or train on more data.",
        s.best_step, kLimits.overfit_checks);
  }
  return a;
}

std::string lower_rate(const RunSummary& s) {
  return std::isfinite(s.learning_rate) && s.learning_rate > 0
             ? fmt::format("Try optim.learning_rate {:.2g}, a third of this run's.", s.learning_rate / 3)
             : "Try a third of this optim.learning_rate.";
}

Advice clipped(const RunSummary& s) {
  Advice a{.rule = fmt::format("Too high a rate, by gradients: {} or more of the steps were clipped.",
                               percent(kLimits.clipped))};
  if (!std::isfinite(s.clipped)) {
    a.seen = "Gradients are not clipped, or their norms are not on record.";
    return a;
  }
  a.seen = fmt::format("{} of the steps had a gradient norm over optim.max_grad_norm {}.", percent(s.clipped),
                       s.max_grad_norm);
  if (s.clipped >= kLimits.clipped && s.steps >= kLimits.few_steps)
    a.suggestion = lower_rate(s) + " If the loss fell well all the same, raise optim.max_grad_norm instead.";
  return a;
}

Advice rebound(const RunRecord& run, const RunSummary& s) {
  Advice a{.rule = fmt::format("Too high a rate, by the loss: the smoothed loss ends {} or more above its lowest.",
                               percent(kLimits.rebound))};
  const std::vector<double> loss = smoothed(run.metrics.column(&StepRow::loss), s.smoothing);
  const bool broken = std::ranges::any_of(run.metrics.steps, [](const StepRow& r) { return !std::isfinite(r.loss); });
  const double least = least_of(loss);
  if (broken) {
    a.seen = "A step has no finite loss.";
    a.suggestion = lower_rate(s);
    return a;
  }
  a.seen = fmt::format("Lowest {:.4f}, at the end {:.4f}.", least, s.last_loss);
  if (least > 0 && s.last_loss / least - 1 >= kLimits.rebound && s.steps >= kLimits.few_steps)
    a.suggestion = lower_rate(s) + " A longer warm-up (optim.warmup_steps) helps too.";
  return a;
}

Advice still_falling(const RunRecord& run, const RunSummary& s) {
  Advice a{.rule =
               fmt::format("Too short: {} or more of the smoothed loss's whole fall is in the run's last fifth, and "
                           "the validation loss, if any, is at its lowest.",
                           percent(kLimits.still_falling))};
  const std::vector<double> loss = smoothed(run.metrics.column(&StepRow::loss), s.smoothing);
  if (static_cast<int64_t>(loss.size()) < kLimits.few_steps) {
    a.seen = fmt::format("{} steps are too few to see it.", loss.size());
    return a;
  }
  const double before = loss[loss.size() - loss.size() / 5], all = s.first_loss - s.last_loss;
  const bool lowest = !std::isfinite(s.best_validation) || s.last_validation <= s.best_validation;
  a.seen = fmt::format("{:.4g} at first, {:.4g} before the last fifth, {:.4g} at the end.", s.first_loss, before,
                       s.last_loss);
  if (all > 0 && (before - s.last_loss) / all >= kLimits.still_falling && lowest)
    a.suggestion = "Train longer: more train.epochs, or half as many steps again in train.max_steps.";
  return a;
}

Advice truncated(const RunRecord& run) {
  Advice a{.rule = fmt::format("Truncated data: rows that were cut at data.max_length are {} or more of the documents.",
                               percent(kLimits.cut))};
  if (!run.lengths || run.lengths->documents == 0) {
    a.seen = "The token store is not there.";
    return a;
  }
  const LengthRecord& l = *run.lengths;
  const double share = static_cast<double>(l.cut) / static_cast<double>(std::max(l.cut, l.documents));
  a.seen = fmt::format("{} rows were cut at {} tokens; {} documents are trained on.", l.cut, l.max_length, l.documents);
  if (share >= kLimits.cut) {
    a.suggestion =
        fmt::format("Raise data.max_length above {}, or divide long dialogs into several rows.", l.max_length);
  }
  return a;
}

Advice few_trained(const RunRecord& run) {
  Advice a{.rule = fmt::format("Few targets: fewer than {} of the tokens are trained.", percent(kLimits.few_trained))};
  if (!run.lengths || run.lengths->tokens == 0) {
    a.seen = "The token store is not there.";
    return a;
  }
  const double share = static_cast<double>(run.lengths->trained_tokens) / static_cast<double>(run.lengths->tokens);
  a.seen = fmt::format("{} of the tokens are trained.", percent(share));
  if (share < kLimits.few_trained)
    a.suggestion =
        "Look at what drover prepare marks as trained: data.train_on: all trains more, shorter prompts cost "
        "less.";
  return a;
}

Advice idle(const RunRecord& run) {
  Advice a{.rule = fmt::format("Idle stages: {} or more of a step passes without computing, on average over the ranks.",
                               percent(kLimits.idle))};
  double share = kHole;
  if (!run.traces.empty()) {
    share = run.traces.back().idle();
    a.seen = fmt::format("{} of step {}, as it was traced.", percent(share), run.traces.back().step);
  } else if (run.plan && std::isfinite(run.plan->time.bubble)) {
    share = run.plan->time.bubble;
    a.seen = fmt::format("{} by the plan; no step was traced.", percent(share));
  } else {
    a.seen = "No step was traced (log.trace), and the plan states no bubble.";
  }
  if (share >= kLimits.idle) {
    a.suggestion =
        "More micro-batches a step keep the stages busy: a smaller train.micro_batch_size, a larger "
        "train.global_batch_size, or fewer stages (parallel.pp).";
  }
  return a;
}

Advice stalled(const RunSummary& s) {
  Advice a{.rule = fmt::format("Stalls: steps that took over {:g} times the usual cost {} or more of the time.",
                               kStallFactor, percent(kLimits.stalled))};
  const double share = s.seconds > 0 ? s.lost_seconds / s.seconds : 0;
  a.seen = fmt::format("{} stalls took {:.3g} s too long, {} of the steps' time.", s.stalls.size(), s.lost_seconds,
                       percent(share));
  if (share >= kLimits.stalled)
    a.suggestion =
        "Look at the stalls under Speed: other programs on the machine, a slow disk, or saving and "
        "validating too often (checkpoint.every_steps, eval.every_steps).";
  return a;
}

}  // namespace

std::vector<Advice> advice_of(const RunRecord& run, const RunSummary& s) {
  return {overfit(run, s), clipped(s),       rebound(run, s), still_falling(run, s),
          truncated(run),  few_trained(run), idle(run),       stalled(s)};
}

}  // namespace drover
