// A plan as `drover plan --json` prints it and a run keeps it in output.dir/plan.json.
#pragma once
#include <nlohmann/json.hpp>

#include "trainer/engine/plan.h"
#include "trainer/planning/disk_plan.h"
#include "trainer/planning/time_plan.h"

namespace drover {

struct PlannedMemory {
  const std::vector<RankPlan>& ranks;
  const ModelConfig& model;
  const AdapterLayout& adapter;
  const std::string& schedule;  // as it is printed
  int64_t before_arenas = 0;    // bytes of a process that are not its arenas; 0: not known
};

nlohmann::ordered_json plan_json(const PlannedMemory& memory, const TimePlan& time, const PlannedMachine& machine,
                                 const DiskPlan& disk);

}  // namespace drover
