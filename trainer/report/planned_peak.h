// What a run's memory stands against in its plan: on a GPU the arenas; on a CPU the process, which holds them, and then
// the plan says how much that holds in all.
#pragma once
#include <cmath>
#include <span>

#include "trainer/report/plan_record.h"

namespace drover {

inline bool counts_processes(const PlanRecord& plan) { return std::isfinite(plan.process_bytes); }

// Of one rank, planned or reached; NaN where it is not stated.
inline double peak_of(const RankMemory& rank, const PlanRecord& plan) {
  return counts_processes(plan) ? rank.process : rank.total;
}

inline double planned_peak(const PlanRecord& plan) {
  if (counts_processes(plan)) return plan.process_bytes;
  return plan.fullest() == nullptr ? kHole : plan.fullest()->total;
}

// Of the fullest rank; `in_steps`, which metrics have, where no rank says what it reached: of a process, or all that
// was taken of a GPU's memory.
inline double reached_peak(const PlanRecord& plan, std::span<const RankMemory> reached, double in_steps) {
  double most = kHole;
  for (const RankMemory& rank : reached) most = std::fmax(most, peak_of(rank, plan));
  return std::isfinite(most) ? most : in_steps;
}

// Null where the rank does not say what it reached.
inline const RankMemory* reached_by(std::span<const RankMemory> reached, int rank) {
  for (const RankMemory& one : reached) {
    if (one.rank == rank) return &one;
  }
  return nullptr;
}

}  // namespace drover
