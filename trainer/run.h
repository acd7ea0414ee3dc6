// A training run from recipe to exported adapter: what `drover train` does on every rank.
#pragma once
#include "configs/recipe.h"
#include "kernels/comm/mesh.h"

namespace drover {

// Collective. Returns Exit::done, or Exit::preempted / Exit::interrupted after a save. Expected errors throw the same Error on every rank.
Exit train(const ReadRecipe& recipe, Mesh& mesh, int threads);

// The validation loss of a store on an engine: Σ w·nll / Σ w over all rows, each token once at any dp.
class Engine;
class TokenStore;
struct Evaluation {
  double loss = 0, weight = 0;
};
Evaluation evaluate_store(Engine& engine, const TokenStore& store, int64_t micro_batch_size, int64_t rows_at_once);

}  // namespace drover
