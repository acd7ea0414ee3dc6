// The lowest validation loss of a run so far, for checkpoint.keep_best and eval.stop_after. A checkpoint holds it, so
// that a run that continues decides as one that was never stopped.
#pragma once
#include <cstdint>

namespace drover {

struct BestValidation {
  int64_t step = 0;   // after which it was; 0: there is none. The loss before the first step does not count
  double loss = 0;    // of it
  int64_t last = 0;   // the step of the last validation
  int64_t since = 0;  // validations after the best one

  // A validation after `at` steps; one that was counted before changes nothing.
  void count(int64_t at, double its_loss) {
    if (at <= last) return;
    last = at;
    const bool better = step == 0 || its_loss < loss;
    since = better ? 0 : since + 1;
    if (better) step = at, loss = its_loss;
  }
  bool operator==(const BestValidation&) const = default;
};

}  // namespace drover
