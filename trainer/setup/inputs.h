// What a run reads: the model's configuration, the tokenizer and the data, from a recipe.
#pragma once
#include <optional>
#include <span>
#include <vector>

#include "configs/recipe.h"
#include "data/prepare.h"
#include "data/tokenizer.h"
#include "kernels/comm/mesh.h"
#include "model/adapter.h"
#include "model/files/adapter_config.h"
#include "model/files/model_directory.h"
#include "trainer/engine/replica.h"
#include "trainer/generation/sample_answers.h"

namespace drover {

// Plans are made where the model is not: a known shape is found by the path's last component.
enum class ShapeFrom { directory, directory_or_name };
ModelConfig model_config_of(const Recipe& recipe, ShapeFrom from);

// How that model's files scale their tensors. A directory that says it is quantised must hold its weights.
ScalingOf scaling_of(const Recipe& recipe);

fs::path tokenizer_directory(const Recipe& recipe);
std::optional<ChatTemplate> chat_template(const Recipe& recipe);

struct PreparedData {
  TokenStore train;
  std::optional<TokenStore> validation;
  std::vector<SamplePrompt> prompts;  // of eval.prompts
};
PrepareSettings prepare_settings(const Recipe& recipe, const std::vector<DataFile>& files);
// Rank 0 makes or reuses output.dir/data/*.h5, the others wait and open them. Says what it read.
PreparedData prepare_data(const Recipe& recipe, const Tokenizer& tokenizer, Communicator& world);
// The same, writing nothing: for plans.
PreparedData prepare_data_in_memory(const Recipe& recipe, const Tokenizer& tokenizer);
// The token stores that a run has left in `directory` (output.dir/data), without prompts. missing_input and bad_data
// where they are not there or not whole.
PreparedData stored_data(const Recipe& recipe, const fs::path& directory);
// What was taken for what, renamed in vain, skipped, cut and left out: a warning a line.
std::vector<std::string> warnings_of(const PrepareReport& report, const std::string& what, int64_t max_length);
// The formats of the sources, for people: "messages", or "messages, text".
std::string formats_of(const PrepareReport& report);
// bad_data where a tokenizer gives ids that the model has no embedding for. `what`: "the training data",
// "recipe.jsonl:3".
void check_ids(std::span<const int32_t> ids, const ModelConfig& model, const std::string& what);
void check_ids(const TokenStore& store, const ModelConfig& model, const std::string& what);

struct RunInputs {
  ModelDirectory model;
  Tokenizer tokenizer;
  AdapterConfig adapter_config;
  AdapterLayout layout;
  std::string fingerprint;  // of the model
  PreparedData data;
};
// Collective over mesh.world. Each rank checks the weights of its stage only.
RunInputs open_inputs(const ReadRecipe& recipe, const Mesh& mesh);

}  // namespace drover
