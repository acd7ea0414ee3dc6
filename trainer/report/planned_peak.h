// What a run's peak_bytes stands against in its plan: on a GPU peak_bytes is of the device's memory, which holds the
// arenas; on a CPU it is of the process, and then the plan says how much that holds in all.
#pragma once
#include <algorithm>
#include <cmath>

#include "trainer/report/plan_record.h"

namespace drover {

inline double planned_peak(const PlanRecord& plan) {
  if (std::isfinite(plan.process_bytes)) return plan.process_bytes;
  return plan.fullest() == nullptr ? kHole : plan.fullest()->total;
}

// What a process holds apart from its arenas; 0 where the plan does not state it.
inline double planned_rest(const PlanRecord& plan) {
  if (!std::isfinite(plan.process_bytes) || plan.fullest() == nullptr) return 0;
  return std::max(0.0, plan.process_bytes - plan.fullest()->total);
}

}  // namespace drover
