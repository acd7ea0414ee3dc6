// What verbs that answer share: mesh, dtype, adapters by name.
#pragma once
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "configs/recipe.h"
#include "kernels/base/mesh_shape.h"
#include "launch/process.h"

namespace drover {

// parallel.pp stages, and as many ranks in each as there are; bad_recipe where the numbers do not fit. `verb`: for the
// message.
MeshShape inference_mesh(const ParallelSection& parallel, int ranks, const std::string& verb);

// On a CPU answers are computed in fp32 unless train.dtype says otherwise: bf16 is hardly faster there, and a small
// model's answer can hang on its last bit. A model that would take more than half of the free memory of a rank stays
// in bf16. Collective over all ranks.
void choose_inference_dtype(Recipe& recipe, std::span<const std::string> overrides, const Process& process);

// The words of --adapter NAME=DIR; usage where one is malformed or a name comes twice.
using NamedAdapters = std::vector<std::pair<std::string, fs::path>>;
NamedAdapters named_adapters(const std::vector<std::string>& words);

}  // namespace drover
