// A run in a few figures. NaN: not known.
#pragma once
#include "trainer/report/run_record.h"

namespace drover {

// A step that took more than kStallFactor times the median of the steps around it.
struct Stall {
  int64_t step = 0;
  double seconds = 0, usual = 0;
  std::string cause;  // what happened just before, as far as the run's files say it
};
inline constexpr double kStallFactor = 3;
inline constexpr size_t kStallNeighbours = 50;  // on each side

std::vector<Stall> stalls_of(const RunRecord& run);

struct RunSummary {
  int64_t steps = 0;                             // the last one's number
  double first_loss = kHole, last_loss = kHole;  // smoothed at the end
  double smoothing = 1;                          // steps
  double first_validation = kHole, best_validation = kHole, last_validation = kHole;
  int64_t best_step = 0;                                   // of best_validation
  double learning_rate = kHole;                            // the highest
  double tokens = 0, trained_tokens = 0, seconds = 0;      // sums over steps
  double step_seconds = kHole, tokens_per_second = kHole;  // medians
  double peak_bytes = kHole;
  double max_grad_norm = 0;        // 0: gradients are not clipped
  double clipped = kHole;          // share of the steps whose gradient was larger
  double lost_seconds = 0;         // in stalls, over what is usual
  double change = kHole;           // ‖ΔW‖ of the whole adapter
  double relative_change = kHole;  // that over ‖W‖ of the adapted weights
  std::vector<Stall> stalls;
};

RunSummary summary_of(const RunRecord& run);

}  // namespace drover
