// From a recipe to the settings of engine and optimizer.
#pragma once
#include "configs/recipe.h"
#include "trainer/engine/engine.h"
#include "trainer/setup/inputs.h"

namespace drover {

DType dtype_of(Precision precision);
WeightsAs weights_as(WeightFormat format);
Products products_of(MatmulNumbers numbers);

int64_t total_steps(const Recipe& recipe, int64_t steps_per_epoch);
// With the learning rate of LoRA+ for B. Source: Hayou et al. 2024.
OptimizerSettings optimizer_settings(const OptimSection& optim, int64_t total_steps);

// Settings of the engine for a mesh. `data` may be absent (plans without data): micro-batches are then full.
EngineSettings engine_settings(const Recipe& recipe, const ModelConfig& model, const AdapterLayout& layout,
                               const MeshShape& mesh, const PreparedData* data);

// What the device that was opened is like: how its weights lie, and whether its sums overlap with computing.
void fit_to(const Device& device, EngineSettings& settings);

// How many layers' time the head takes, for the pipeline's partition.
double head_cost_in_layers(const ModelConfig& model);

}  // namespace drover
