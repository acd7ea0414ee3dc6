// From a recipe to what a run is made of: model files, tokenizer, token stores, adapter, and the engine's settings.
#pragma once
#include "configs/recipe.h"
#include "data/loader.h"
#include "data/prepare.h"
#include "model/files/model_directory.h"
#include "model/files/peft.h"
#include "trainer/plan.h"
#include "trainer/sample_answers.h"

namespace drover {

DType dtype_of(Precision precision);

// The adapter a recipe asks for, as PEFT would write it down. With lora.init_from that directory's configuration, which the recipe may only repeat (78).
AdapterConfig adapter_config(const ReadRecipe& recipe);
AdapterConfig adapter_config_in(const fs::path& directory);  // DIR/adapter_config.json
AdapterLayout adapter_layout_of(const ModelConfig& model, const AdapterConfig& adapter);

// The configuration of the model a recipe names: its directory's config.json, or, for plans, a known shape by the path's last component.
ModelConfig model_config_of(const Recipe& recipe, bool known_names_too);

struct PreparedData {
  TokenStore train;
  std::optional<TokenStore> validation;
  std::vector<SamplePrompt> prompts;  // of eval.prompts
};
PrepareSettings prepare_settings(const Recipe& recipe, const std::vector<DataFile>& files);
fs::path tokenizer_directory(const Recipe& recipe);
std::optional<ChatTemplate> chat_template(const Recipe& recipe);
// Rank 0 makes or reuses output.dir/data/*.h5, the others wait and open them. Says what it read.
PreparedData prepare_data(const Recipe& recipe, const Tokenizer& tokenizer, Communicator& world);
PreparedData prepare_data_in_memory(const Recipe& recipe, const Tokenizer& tokenizer);  // the same, writing nothing: for plans
void warn_about(const PrepareReport& report, const std::string& what, int64_t max_length);  // what was skipped, cut and left out
// 65 where a tokenizer gives ids that the model has no embedding for. `what`: "the training data", "recipe.jsonl:3".
void check_ids(std::span<const int32_t> ids, const ModelConfig& model, const std::string& what);

int64_t total_steps(const Recipe& recipe, int64_t steps_per_epoch);
// With the learning rate of LoRA+ for B. Source: Hayou et al. 2024.
OptimizerSettings optimizer_settings(const OptimSection& optim, int64_t total_steps);

// Settings of the engine for a mesh. `data` may be absent (plans without data): micro-batches are then full.
EngineSettings engine_settings(const Recipe& recipe, const ModelConfig& model, const AdapterLayout& layout,
                               const MeshShape& mesh, const PreparedData* data);

// How many layers' time the head takes, for the pipeline's partition.
double head_cost_in_layers(const ModelConfig& model);

}  // namespace drover
