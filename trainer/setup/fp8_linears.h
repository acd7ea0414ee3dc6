// Which frozen linears of a run multiply in fp8 (train.matmul: fp8).
#pragma once
#include "trainer/engine/engine.h"

namespace drover {

// A line for people: how many do, and which are held in fp8 but cannot (kernels/fp8_products.h says why) and so
// multiply in train.dtype, as those do that are not held in fp8. Empty without train.matmul: fp8; bad_recipe where no
// linear does. Needs settings.stored.
std::string fp8_linears(const EngineSettings& settings, const MeshShape& shape);

}  // namespace drover
