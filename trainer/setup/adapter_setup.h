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

// Empty where the adapter means the embedding and no linear (BaseWeights adds it).
AdapterLayout adapter_layout_of(const ModelConfig& model, const AdapterConfig& adapter);

// bad_recipe where the adapter says that more is trained than linears.
void check_trains_linears_only(const AdapterConfig& adapter, const std::string& key);

}  // namespace drover
