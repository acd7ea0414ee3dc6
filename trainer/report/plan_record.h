// plan.json of a run, what `drover plan --json` says of it, and reached.json, what its ranks reached of that. Every key
// may be absent, and others may be there; a number that no plan has (less than 0, or more than kMostPlanned) is as one
// that is absent.
#pragma once
#include <string>
#include <vector>

#include "kernels/base/json.h"
#include "trainer/report/metrics_series.h"

namespace drover {

inline constexpr double kMostPlanned = 1e18;

struct RankMemory {  // bytes
  int rank = 0;
  double weights = 0, adapter = 0, optimizer = 0, saved = 0, scratch = 0;
  double total = 0;                                                      // of the arenas
  double process = kHole;                                                // NaN: not stated
  double rest() const { return process > total ? process - total : 0; }  // of the process, where that holds the arenas
};

struct PlannedTime {  // NaN: not stated
  double step_seconds = kHole, tokens_per_second = kHole, run_seconds = kHole, bubble = kHole, mfu = kHole,
         exposed_communication_seconds = kHole;
  bool calibrated = false;
  std::string rates;  // where the rates come from
};

struct PlanRecord {
  std::vector<RankMemory> ranks;
  double parameters = kHole, trainable_parameters = kHole, process_bytes = kHole;
  PlannedTime time;
  std::string schedule;

  const RankMemory* fullest() const;  // null where no rank is stated
};

PlanRecord plan_record(const Json& json);
std::vector<RankMemory> reached_record(const Json& json);  // by rank

}  // namespace drover
