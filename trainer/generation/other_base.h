// Adapters over a base of another format than the one that they were trained over.
#pragma once
#include <span>

#include "configs/recipe.h"
#include "kernels/base/file.h"
#include "kernels/comm/device.h"

namespace drover {

// Collective over mesh.world, before the recipe's model is opened for its work. A warning of each adapter whose
// comparison.json names another format than a model of this recipe has, with how far apart ln p is over the documents
// that are kept with it (logprobs.json): for that the model is loaded once more, on the same ranks. Or that none is
// kept, or why it could not be measured; it never fails.
void warn_of_other_base(std::span<const fs::path> adapters, const Recipe& recipe, const Mesh& mesh,
                        const OpenDevice& open_device);

}  // namespace drover
