#include "launch/verbs/plan.h"

#include <iostream>
#include <nlohmann/json.hpp>

#include "data/data_files.h"
#include "kernels/devices/devices.h"
#include "launch/verbs/run_recipe.h"
#include "launch/verbs/serving_question.h"
#include "launch/verbs/verb.h"
#include "trainer/engine/plan.h"
#include "trainer/export/adapter_targets.h"
#include "trainer/setup/adapter_setup.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/fp8_linears.h"
#include "trainer/setup/inputs.h"
#include "trainer/setup/recipe_check.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

ordered_json plan_json(const std::vector<RankPlan>& plans, const ModelConfig& model, const AdapterLayout& layout,
                       const std::string& schedule) {
  ordered_json ranks = ordered_json::array();
  for (const RankPlan& p : plans) {
    ranks.push_back({{"rank", p.rank},
                     {"tp", p.position.tp()},
                     {"pp", p.position.pp()},
                     {"dp", p.position.dp()},
                     {"layers", {p.layers.begin, p.layers.end}},
                     {"weights_bytes", p.bytes.weights},
                     {"adapter_bytes", p.bytes.adapter},
                     {"optimizer_bytes", p.bytes.optimizer},
                     {"saved_bytes", p.bytes.saved},
                     {"scratch_bytes", p.bytes.scratch},
                     {"total_bytes", p.bytes.total()}});
    if (p.ring_bytes == 0) continue;
    ranks.back()["streamed"] = {{"ring_bytes", p.ring_bytes},
                                {"host_bytes", p.host_bytes},
                                {"copied_bytes_a_step", p.copied_bytes},
                                {"tokens_together", p.tokens_together},
                                {"tokens_to_hide_copies", p.tokens_to_hide()}};
  }
  return {{"ranks", ranks},
          {"parameters", parameter_count(model)},
          {"trainable_parameters", trainable_parameters(model, layout)},
          {"schedule", schedule}};
}

}  // namespace

Exit run_plan(const RecipeArguments& a, std::optional<int> ranks, bool all) {
  const ReadRecipe read = read_run_recipe(a);
  const Recipe& recipe = read.recipe;
  const ModelConfig model = model_config_of(recipe, ShapeFrom::directory_or_name);
  const int64_t stated = recipe.parallel.tp * recipe.parallel.pp * recipe.parallel.dp.value_or(1);
  const MeshShape shape = check_recipe(read, model, ranks.value_or(static_cast<int>(stated)), Inputs::may_be_absent);
  const AdapterLayout layout = adapter_layout_of(model, adapter_config(read));
  // With the data and a tokenizer at hand the plan knows the real micro-batches; without, they are full.
  std::optional<PreparedData> data;
  const fs::path text = tokenizer_directory(recipe);
  const auto here = [](const std::vector<DataFile>& files) {
    return std::all_of(files.begin(), files.end(), [](const DataFile& f) { return has_data_files(f.path); });
  };
  const bool have_data = (fs::exists(text / "tokenizer.json") || fs::exists(text / "tokenizer.model")) &&
                         here(recipe.data.train) && here(recipe.data.validation.files) &&
                         (!recipe.eval.prompts || fs::exists(*recipe.eval.prompts));
  if (have_data) {
    const Tokenizer tokenizer = Tokenizer::open(tokenizer_directory(recipe));
    data = prepare_data_in_memory(recipe, tokenizer);
  }
  EngineSettings settings = engine_settings(recipe, model, layout, shape, data ? &*data : nullptr);
  settings.stored = scaling_of(recipe);
  const bool on_cuda =
      recipe.device == DeviceChoice::cuda || (recipe.device == DeviceChoice::automatic && cuda_status().usable);
  settings.traits = traits_of(on_cuda ? DeviceKind::cuda : DeviceKind::cpu);
  settings.overlaps_sums =
      on_cuda && recipe.parallel.transport != Transport::staged && !recipe.train.deterministic;  // as NCCL does
  const std::string multiplying = fp8_linears(settings, shape);
  const std::vector<RankPlan> plans = plan_mesh(settings, shape);
  const std::string schedule = print(schedule_of_run(settings, shape));
  if (a.json) {
    std::cout << plan_json(plans, model, layout, schedule).dump(1) << '\n';
    return Exit::done;
  }
  std::cout << fmt::format("{} parameters, {} of them train ({:.2f} %); {} ranks: tp {} · pp {} · dp {}\n",
                           parameter_count(model), trainable_parameters(model, layout),
                           100.0 * static_cast<double>(trainable_parameters(model, layout)) /
                               static_cast<double>(parameter_count(model)),
                           shape.size(), shape.tp(), shape.pp(), shape.dp())
            << multiplying << (multiplying.empty() ? "" : "\n")
            << (have_data ? "micro-batches as the data gives them\n"
                          : "micro-batches at their fullest (the data or the tokenizer is not here)\n")
            << print_plan(plans, all ? Lines::of_each_rank : Lines::of_equal_ranks) << print_streaming(plans)
            << "schedule of the stages:\n"
            << schedule << loads_in(adapter_config(read)) << '\n';
  return Exit::done;
}

namespace {

Exit run_serving_plan(const ServingOptions& options, bool json) {
  const ServingQuestion question = question_of(options);
  const ServingPlan plan = plan_serving(question);
  std::cout << (json ? serving_json(question, plan).dump(1) + "\n" : print_serving(question, plan));
  return Exit::done;
}

}  // namespace

Verb plan_verb(CLI::App& app) {
  struct Arguments {
    RecipeArguments recipe;
    std::optional<int> ranks;
    bool all = false;
    ServingOptions serving;
  };
  const auto a = std::make_shared<Arguments>();
  CLI::App* options = app.add_subcommand(
      "plan",
      "what every rank will hold, and the schedule; with --serve what serving carries and costs. No weights, no MPI");
  add_recipe_options(options, a->recipe);
  options->get_option("recipe")->required(false);
  options->add_option("--ranks", a->ranks, "number of ranks (default: tp·pp·dp of the recipe)")->check(above_zero());
  options->add_flag("--all", a->all, "a line for every rank, also where several hold the same");
  add_serving_options(options, a->serving);
  for (const char* of_runs : {"recipe", "--ranks", "--all"})
    options->get_option("--serve")->excludes(options->get_option(of_runs));
  options->footer(
      "example: drover plan configs/recipes/llama3.1-405b-lora.yaml --ranks 32\n"
      "example: drover plan --serve --model llama3.1-405b --weights fp8 --gpu h100 --gpus 8 --prompt-tokens 1000 "
      "--answer-tokens 500 --price configs/planning/prices.example.yaml");
  return {.options = options, .run = [a](const Process&) {
            if (a->serving.serve) return run_serving_plan(a->serving, a->recipe.json);
            if (a->recipe.words.empty()) fail(Fault::usage, "drover plan needs a recipe, or --serve with its options");
            return run_plan(a->recipe, a->ranks, a->all);
          }};
}

}  // namespace drover
