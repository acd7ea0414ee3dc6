// What `drover generate` is asked on its command line.
#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "configs/recipe.h"
#include "launch/verbs/sampling_options.h"
#include "launch/verbs/verb.h"

namespace drover {

struct GenerateOptions {
  std::string model;
  std::vector<std::string> adapters;
  std::vector<std::string> overrides;
  std::optional<std::string> prompt;
  std::string prompts, out;
  bool raw = false, special = false, json = false, resume = false;
  SamplingOptions sampling;
  int64_t max_tokens = 256;
  std::vector<std::string> stop;
};

// Declares every option; `options` gets its values when the command line is read.
void add_generate_options(CLI::App* verb, GenerateOptions& options);

// The recipe that model and overrides make. Fault::usage where options contradict each other or one is missing.
Recipe recipe_of(const GenerateOptions& options);

// One for all prompts, or some by name among which rows choose.
struct Adapters {
  std::optional<std::filesystem::path> of_all;
  std::map<std::string, std::filesystem::path> named;
};
Adapters adapters_of(const GenerateOptions& options);  // Fault::usage where --adapter is malformed

// A text that is the same on all ranks only if everything that was asked is.
std::string command_line(const Recipe& recipe, const GenerateOptions& options);

}  // namespace drover
