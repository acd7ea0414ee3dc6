// plan.json of a run: what `drover plan --json` says of it. Every key may be absent, and others may be there; a number
// that no plan has (less than 0, or more than kMostPlanned) is as one that is absent.
#pragma once
#include <string>
#include <vector>

#include "kernels/base/json.h"
#include "trainer/report/metrics_series.h"

namespace drover {

inline constexpr double kMostPlanned = 1e18;

struct PlannedRank {
  int rank = 0;
  double weights = 0, adapter = 0, optimizer = 0, saved = 0, scratch = 0;  // bytes
  double total = 0;                                                        // bytes
};

struct PlannedTime {  // NaN: not stated
  double step_seconds = kHole, tokens_per_second = kHole, run_seconds = kHole, bubble = kHole, mfu = kHole,
         exposed_communication_seconds = kHole;
  bool calibrated = false;
  std::string rates;  // where the rates come from
};

struct PlanRecord {
  std::vector<PlannedRank> ranks;
  double parameters = kHole, trainable_parameters = kHole, process_bytes = kHole;
  PlannedTime time;
  std::string schedule;

  const PlannedRank* fullest() const;  // null where no rank is stated
};

PlanRecord plan_record(const Json& json);

}  // namespace drover
