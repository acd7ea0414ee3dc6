// From a recipe to the work that a plan of time counts: batches of its data, or full ones where the data are not here.
#pragma once
#include "configs/recipe.h"
#include "trainer/planning/time_plan.h"
#include "trainer/setup/inputs.h"

namespace drover {

// Keeps `data` by reference, which may be null.
PlannedWork planned_work(const Recipe& recipe, const EngineSettings& settings, const MeshShape& shape,
                         const PreparedData* data);

// A few sentences and figures for people.
std::string print_time(const TimePlan& plan, const MeshShape& shape, const std::string& rates);

}  // namespace drover
