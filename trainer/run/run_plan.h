// A run's own plan: what its ranks will hold and how long its steps will take, said before it starts, written to
// output.dir/plan.json, and compared with what was reached at its end, which output.dir/reached.json has of every rank.
#pragma once
#include <functional>

#include "configs/recipe.h"
#include "kernels/base/file.h"
#include "trainer/engine/engine.h"
#include "trainer/planning/time_plan.h"
#include "trainer/setup/inputs.h"

namespace drover {

// The rates of the machine that a run is on; asked on rank 0.
using MachineOfRun = std::function<PlannedMachine(const Device&)>;

struct RunPlan {
  ArenaBytes arenas;          // of this rank
  int64_t process_bytes = 0;  // of the largest process
  bool calibrated = false;    // of rank 0, as the next ones
  double step_seconds = 0;    // 0: not known
  double tokens_per_second = 0;
  std::string json;  // of plan_json
};

// Collective. Says what the run will hold, and fails where this machine has not as much. A time that cannot be planned
// is warned of.
RunPlan plan_run(const Recipe& recipe, const EngineSettings& settings, const PreparedData& data, const Device& device,
                 const MachineOfRun& machine_of);

// Collective. How far plan and prediction were right; tokens_per_second: of the median step, 0 where there is none.
// The memory that every rank reached is written to `file` where that is not empty.
void say_reached(const RunPlan& plan, Engine& engine, double tokens_per_second, const fs::path& file);

struct ReachedMemory {  // of a rank
  ArenaBytes arenas;
  int64_t process_bytes = 0;
};
std::string reached_json(const std::vector<ReachedMemory>& ranks);  // in rank order; with plan.json's keys

}  // namespace drover
