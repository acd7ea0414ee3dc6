// A training run from recipe to exported adapter: what `drover train` does on every rank.
#pragma once
#include "configs/recipe.h"
#include "kernels/base/error.h"
#include "kernels/comm/device.h"

namespace drover {

// Collective. Returns Exit::done, or Exit::preempted / Exit::interrupted after a save. Expected errors throw the same Error on every rank.
// The device is made once its memory has to be planned: after the inputs were read and checked.
Exit train(const ReadRecipe& recipe, const Mesh& mesh, const OpenDevice& open_device);

}  // namespace drover
