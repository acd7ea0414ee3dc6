// What to try next: rules with their thresholds stated, each with what it saw and, where it holds, what to change.
#pragma once
#include "trainer/report/summary.h"

namespace drover {

struct Thresholds {
  int64_t few_steps = 10;       // rules on losses and gradients want as many
  double overfit = 0.02;        // the last validation loss over the lowest one, relative
  int64_t overfit_checks = 2;   // validations since the lowest
  double clipped = 0.5;         // share of the steps that were clipped
  double at_lowest = 0.02;      // the smoothed loss at its end over its lowest before: so near it still is there
  double rebound = 0.15;        // the smoothed loss at its end over its lowest before, relative
  double still_falling = 0.03;  // share of the smoothed loss's whole fall that is in the last fifth of the run
  double cut = 0.01;            // share of the documents that were cut
  double idle = 0.2;            // share of a traced step in which a stage is idle, mean over the stages
  double stalled = 0.05;        // share of the time that steps took that stalls cost
  double few_trained = 0.05;    // trained tokens among all
};
inline constexpr Thresholds kThresholds;

struct Advice {
  std::string rule;        // the rule with its threshold
  std::string seen;        // the run's own figure; or why the rule could not be asked
  std::string suggestion;  // empty where the rule does not hold
  bool holds() const { return !suggestion.empty(); }
};

std::vector<Advice> advice_of(const RunRecord& run, const RunSummary& summary);

}  // namespace drover
