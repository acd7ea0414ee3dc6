// What each verb does, its arguments already parsed. Results go to stdout, talk to stderr.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "configs/schema.h"
#include "launch/process.h"

namespace drover {

struct RecipeArguments {
  std::string recipe;
  std::vector<std::string> overrides;  // section.key=value
  bool json = false;
};
Exit run_train(const Process& process, const RecipeArguments& arguments, bool dry_run);
Exit run_plan(const RecipeArguments& arguments, std::optional<int> ranks);
Exit run_prepare(const RecipeArguments& arguments);

struct ModelArguments {
  std::string model, adapter;
};
struct EvalArguments {
  RecipeArguments recipe;  // a recipe, or a model and data
  ModelArguments model;
  std::string data, per_token;
};
Exit run_eval(const Process& process, const EvalArguments& arguments);

struct GenerateArguments {
  ModelArguments model;
  std::vector<std::string> overrides;
  std::optional<std::string> prompt;
  std::string prompts, out;
  bool raw = false, greedy = false, json = false, resume = false;
  std::optional<double> temperature, top_p;
  std::optional<uint64_t> seed;
  int64_t max_tokens = 256;
};
Exit run_generate(const Process& process, const GenerateArguments& arguments);

struct TokenizeArguments {
  std::string model, text, file;
  bool special = false, has_text = false;
};
Exit run_tokenize(const TokenizeArguments& arguments);

struct ExportArguments {
  std::string run, adapter, merged;
  std::optional<int64_t> step;
  bool json = false;
};
Exit run_export(const Process& process, const ExportArguments& arguments);

Exit run_import(const std::string& gguf, const std::string& directory);
Exit run_make_tiny(const std::string& directory, uint64_t seed);
Exit run_inspect(const std::string& path, bool json);
Exit run_doctor(const Process& process, bool json);
std::string version_text();

}  // namespace drover
