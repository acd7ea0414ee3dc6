// The mesh of verbs that divide one model over all ranks.
#pragma once
#include <string>

#include "configs/schema.h"
#include "kernels/base/mesh_shape.h"

namespace drover {

// parallel.pp stages, and as many ranks in each as there are; bad_recipe where the numbers do not fit. `verb`: for the
// message.
MeshShape inference_mesh(const ParallelSection& parallel, int ranks, const std::string& verb);

}  // namespace drover
