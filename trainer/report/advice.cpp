#include "trainer/report/advice.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "trainer/report/series_math.h"

namespace drover {

namespace {

constexpr Thresholds kLimits = kThresholds;

std::string percent(double share) { return fmt::format("{:.3g} %", 100 * share); }

// What a run may do about it: only what its files and its recipe leave open.
std::string against_overfitting(const RunRecord& run, const RunSummary& s) {
  std::vector<std::string> ways;
  const bool keeps_best = run.recipe.is("checkpoint.keep_best", "true");
  if (std::ranges::binary_search(run.checkpoints, s.best_step)) {
    ways.push_back(fmt::format("take the adapter of step {0} (step-{0}/adapter)", s.best_step));
  } else if (!keeps_best) {
    ways.push_back(
        fmt::format("train with checkpoint.keep_best: true, which keeps what was best, here step {}", s.best_step));
  }
  if (run.recipe.number("eval.stop_after").value_or(0) <= 0)
    ways.push_back(fmt::format("end earlier (eval.stop_after: {})", kLimits.overfit_checks));
  ways.emplace_back("train on more data");
  std::string text = fmt::format("{}.", fmt::join(ways, ", or "));
  text.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(text.front())));
  return text;
}

Advice overfit(const RunRecord& run, const RunSummary& s) {
  Advice a{.rule =
               fmt::format("Overfit: the last validation loss is {} or more above the lowest, {} or more validations "
                           "after it; or the recipe has no data.validation to see it by.",
                           percent(kLimits.overfit), kLimits.overfit_checks)};
  const auto after =
      std::ranges::count_if(run.metrics.validations, [&](const ValidationRow& row) { return row.step > s.best_step; });
  if (!std::isfinite(s.best_validation)) {
    a.seen = "There is no validation loss.";
    if (run.recipe.is_there() && !run.recipe.word("data.validation"))
      a.suggestion =
          "Give data.validation, {share: 0.05} for example: without it nobody sees when a run begins to learn by "
          "heart.";
    return a;
  }
  const double above = s.last_validation / s.best_validation - 1;
  a.seen = fmt::format("Lowest {:.4f} after step {}, last {:.4f}: {} above, {} validations later.", s.best_validation,
                       s.best_step, s.last_validation, percent(std::max(0.0, above)), after);
  if (above >= kLimits.overfit && after >= kLimits.overfit_checks) a.suggestion = against_overfitting(run, s);
  return a;
}

std::string lower_rate(const RunSummary& s) {
  return std::isfinite(s.learning_rate) && s.learning_rate > 0
             ? fmt::format("Try optim.learning_rate {:.2g}, a third of this run's.", s.learning_rate / 3)
             : "Try a third of this optim.learning_rate.";
}

std::vector<double> smoothed_loss(const RunRecord& run, const RunSummary& s) {
  return smoothed(run.metrics.column(&StepRow::loss), s.smoothing);
}

// How far the smoothed loss ends above its lowest, relative.
double above_lowest(const RunRecord& run, const RunSummary& s) {
  const double least = least_of(smoothed_loss(run, s));
  return least > 0 ? s.last_loss / least - 1 : 0;
}

bool is_broken(const RunRecord& run) {
  return std::ranges::any_of(run.metrics.steps, [](const StepRow& r) { return !std::isfinite(r.loss); });
}

Advice clipped(const RunRecord& run, const RunSummary& s) {
  Advice a{.rule = fmt::format("Too high a rate, by gradients: {} or more of at least {} steps were clipped, and the "
                               "smoothed loss ends {} or more above its lowest.",
                               percent(kLimits.clipped), kLimits.few_steps, percent(kLimits.at_lowest))};
  if (!run.recipe.is_there()) {
    a.seen = "There is no recipe.yaml, which says at what norm gradients are clipped.";
    return a;
  }
  if (!std::isfinite(s.clipped)) {
    a.seen = "Gradients are not clipped, or their norms are not on record.";
    return a;
  }
  const double above = above_lowest(run, s);
  a.seen = fmt::format(
      "{} of the steps had a gradient norm over optim.max_grad_norm {}; the loss ends {} above its "
      "lowest.",
      percent(s.clipped), s.max_grad_norm, percent(above));
  if (s.clipped >= kLimits.clipped && s.steps >= kLimits.few_steps && above >= kLimits.at_lowest)
    a.suggestion = lower_rate(s);
  return a;
}

Advice rebound(const RunRecord& run, const RunSummary& s) {
  Advice a{.rule = fmt::format("Too high a rate, by the loss: over at least {} steps the smoothed loss ends {} or more "
                               "above its lowest; or a step has no finite loss.",
                               kLimits.few_steps, percent(kLimits.rebound))};
  if (is_broken(run)) {
    a.seen = "A step has no finite loss.";
    a.suggestion = lower_rate(s);
    return a;
  }
  a.seen = fmt::format("Lowest {:.4f}, at the end {:.4f}.", least_of(smoothed_loss(run, s)), s.last_loss);
  if (above_lowest(run, s) >= kLimits.rebound && s.steps >= kLimits.few_steps)
    a.suggestion = lower_rate(s) + " A longer warm-up (optim.warmup_steps) helps too.";
  return a;
}

std::string train_longer(const RunRecord& run) {
  const std::optional<double> most = run.recipe.number("train.max_steps");
  if (most) return fmt::format("Train longer: train.max_steps {:.0f}, half as many again.", std::ceil(*most * 1.5));
  return run.recipe.is_there() ? "Train longer: more train.epochs." : "Train longer: half as many steps again.";
}

Advice still_falling(const RunRecord& run, const RunSummary& s) {
  Advice a{.rule = fmt::format(
               "Too short: {} or more of the smoothed loss's whole fall is in the last fifth of at least {} steps, it "
               "ends less than {} above its lowest, the validation loss, if any, is at its lowest, every step has a "
               "finite loss, and the run came to its end.",
               percent(kLimits.still_falling), kLimits.few_steps, percent(kLimits.at_lowest))};
  const std::vector<double> loss = smoothed_loss(run, s);
  const bool early = run.planned_steps().value_or(0) > static_cast<double>(s.steps);
  if (static_cast<int64_t>(loss.size()) < kLimits.few_steps || run.state == RunState::running || early) {
    a.seen = static_cast<int64_t>(loss.size()) < kLimits.few_steps
                 ? fmt::format("{} steps are too few to see it.", loss.size())
                 : "The run is not at its end.";
    return a;
  }
  const double before = loss[loss.size() - loss.size() / 5], all = s.first_loss - s.last_loss;
  const bool lowest = !std::isfinite(s.best_validation) || s.last_validation <= s.best_validation;
  a.seen = fmt::format("{:.4g} at first, {:.4g} before the last fifth, {:.4g} at the end.", s.first_loss, before,
                       s.last_loss);
  const bool falls = all > 0 && (before - s.last_loss) / all >= kLimits.still_falling;
  if (falls && lowest && !is_broken(run) && above_lowest(run, s) < kLimits.at_lowest) a.suggestion = train_longer(run);
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
  if (l.max_length == 0) {
    a.seen = "There is no recipe.yaml, which says at what length rows are cut.";
    return a;
  }
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
    a.suggestion = fmt::format("Look at what drover prepare marks as trained: {}shorter prompts cost less.",
                               run.recipe.is("data.train_on", "all") ? "" : "data.train_on: all trains more, ");
  return a;
}

// Empty where the recipe leaves nothing to change.
std::string busier(const RunRecord& run) {
  const double stages = run.recipe.number("parallel.pp").value_or(1);
  if (!(stages > 1)) return "";
  const bool splits = run.recipe.number("train.micro_batch_size").value_or(1) > 1;
  return fmt::format(
      "More micro-batches a step keep the stages busy: {}a larger train.global_batch_size; or fewer stages "
      "(parallel.pp).",
      splits ? "a smaller train.micro_batch_size, or " : "");
}

Advice idle(const RunRecord& run) {
  Advice a{.rule =
               fmt::format("Idle stages: of several stages (parallel.pp), {} or more of a traced step passes without "
                           "computing, on average over the ranks; or, where none was traced, as much of the "
                           "pipeline's time by the plan.",
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
  if (!run.recipe.is_there()) a.seen += " There is no recipe.yaml, which says how many stages there are.";
  if (share >= kLimits.idle) a.suggestion = busier(run);
  return a;
}

Advice stalled(const RunSummary& s) {
  Advice a{.rule = fmt::format("Stalls: steps that took over {:g} times the usual cost {} or more of the time.",
                               kStallFactor, percent(kLimits.stalled))};
  const double share = s.seconds > 0 ? s.lost_seconds / s.seconds : 0;
  a.seen = fmt::format("{} stall{} took {:.3g} s too long, {} of the steps' time.", s.stalls.size(),
                       s.stalls.size() == 1 ? "" : "s", s.lost_seconds, percent(share));
  if (share >= kLimits.stalled)
    a.suggestion =
        "Look at the stalls under Speed: other programs on the machine, a slow disk, or saving and "
        "validating too often (checkpoint.every_steps, eval.every_steps).";
  return a;
}

}  // namespace

std::vector<Advice> advice_of(const RunRecord& run, const RunSummary& s) {
  return {overfit(run, s), clipped(run, s),  rebound(run, s), still_falling(run, s),
          truncated(run),  few_trained(run), idle(run),       stalled(s)};
}

}  // namespace drover
