// The adapter that a recipe asks for.
#pragma once
#include "configs/recipe.h"
#include "kernels/base/file.h"
#include "model/adapter.h"
#include "model/files/adapter_config.h"

namespace drover {

// As PEFT would write it down. With lora.init_from that directory's configuration, which the recipe may only repeat
// (bad_recipe).
AdapterConfig adapter_config(const ReadRecipe& recipe);
AdapterConfig adapter_config_in(const fs::path& directory);  // DIR/adapter_config.json

AdapterLayout adapter_layout_of(const ModelConfig& model, const AdapterConfig& adapter);

}  // namespace drover
