// A training run from recipe to exported adapter: what `drover train` does on every rank.
#pragma once
#include "configs/recipe.h"
#include "trainer/run/run_plan.h"
#include "trainer/run/stop_signal.h"

namespace drover {

// Collective. Why the run was stopped, after a save; none where it is done. Expected errors throw the same Error on
// every rank.
// The device is made once its memory has to be planned: after the inputs were read and checked.
StopReason train(const ReadRecipe& recipe, const Mesh& mesh, const OpenDevice& open_device,
                 const MachineOfRun& machine_of);

}  // namespace drover
