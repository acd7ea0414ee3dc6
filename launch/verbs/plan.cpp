#include "launch/verbs/plan.h"

#include <iostream>

#include "data/data_files.h"
#include "kernels/base/units.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/devices/devices.h"
#include "launch/plan_search.h"
#include "launch/planned_machine.h"
#include "launch/planning/cost.h"
#include "launch/verbs/run_recipe.h"
#include "launch/verbs/serving_question.h"
#include "launch/verbs/verb.h"
#include "trainer/engine/plan.h"
#include "trainer/export/adapter_targets.h"
#include "trainer/planning/plan_json.h"
#include "trainer/planning/planned_run.h"
#include "trainer/run/process_memory.h"
#include "trainer/setup/adapter_setup.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/fp8_linears.h"
#include "trainer/setup/inputs.h"
#include "trainer/setup/recipe_check.h"

namespace drover {

namespace {

// What a plan is made of.
struct Planned {
  ReadRecipe read;
  ModelConfig model;
  MeshShape shape;
  AdapterLayout layout;
  // Where the data and a tokenizer are at hand; without, micro-batches are full.
  std::optional<Tokenizer> tokenizer;
  std::optional<PreparedData> data;
  DeviceKind device = DeviceKind::cpu;
  EngineSettings settings;
  std::string multiplying;  // of fp8_linears
};

// What a rank's process holds more than this one once it works with others: the libraries that carry their messages.
constexpr int64_t kMessagesBytes = int64_t{7} << 20;

bool has_data(const Recipe& recipe) {
  const fs::path text = tokenizer_directory(recipe);
  const auto here = [](const std::vector<DataFile>& files) {
    return std::all_of(files.begin(), files.end(), [](const DataFile& f) { return has_data_files(f.path); });
  };
  return (fs::exists(text / "tokenizer.json") || fs::exists(text / "tokenizer.model")) && here(recipe.data.train) &&
         here(recipe.data.validation.files) && (!recipe.eval.prompts || fs::exists(*recipe.eval.prompts));
}

// Tokens that this process holds, and a run reads from a file.
int64_t token_bytes(const PreparedData& data) {
  const int64_t tokens = data.train.tokens() + (data.validation ? data.validation->tokens() : 0);
  return tokens * static_cast<int64_t>(sizeof(int32_t) + sizeof(uint8_t));
}

Planned planned(const PlanArguments& a) {
  Planned p{.read = read_run_recipe(a.recipe)};
  const Recipe& recipe = p.read.recipe;
  p.model = model_config_of(recipe, ShapeFrom::directory_or_name);
  const int64_t stated = recipe.parallel.tp * recipe.parallel.pp * recipe.parallel.dp.value_or(1);
  p.shape = check_recipe(p.read, p.model, a.ranks.value_or(static_cast<int>(stated)), Inputs::may_be_absent);
  p.layout = adapter_layout_of(p.model, adapter_config(p.read));
  if (has_data(recipe)) {
    p.tokenizer = Tokenizer::open(tokenizer_directory(recipe));
    p.data = prepare_data_in_memory(recipe, *p.tokenizer);
  }
  p.settings = engine_settings(recipe, p.model, p.layout, p.shape, p.data ? &*p.data : nullptr);
  p.settings.stored = scaling_of(recipe);
  if (!a.machine.gpu.empty() || recipe.device == DeviceChoice::cuda ||
      (recipe.device == DeviceChoice::automatic && cuda_status().usable))
    p.device = DeviceKind::cuda;
  p.settings.traits = traits_of(p.device);
  p.settings.overlaps_sums = p.device == DeviceKind::cuda && recipe.parallel.transport != Transport::staged &&
                             !recipe.train.deterministic;  // as NCCL does
  p.multiplying = fp8_linears(p.settings, p.shape);
  return p;
}

void check_machine_options(const PlanArguments& a) {
  if (!a.machine.hardware.empty() && a.machine.gpu.empty())
    fail(Fault::usage, "--hardware is a table of GPUs: name one of them (--gpu)");
  if (!a.calibration.empty() && !a.machine.gpu.empty())
    fail(Fault::usage, "--gpu plans at the hardware table's rates, and --calibration gives others: leave one out");
}

// Of the whole run; of a step where nobody says how many there are.
RunEstimate estimate_of(const TimePlan& time, int ranks) {
  const int64_t steps = std::max<int64_t>(time.steps, 1);
  return {.run_seconds = time.steps > 0 ? time.run_seconds : time.step_seconds,
          .ranks = ranks,
          .trained_tokens = steps * time.trained_tokens_per_step,
          .tokens = steps * time.tokens_per_step};
}

// What a rank on a CPU holds before its arenas: as much as this process does.
int64_t held_by_a_rank(const Planned& p, const MpiWorld& mpi) {
  const int64_t messages = p.shape.size() > 1 && mpi.size == 1 ? kMessagesBytes : 0;
  return held_process_bytes() - (p.data ? token_bytes(*p.data) : 0) + messages;
}

// Of a process on a CPU.
std::string print_process(const std::vector<RankPlan>& plans, int64_t before_arenas) {
  if (before_arenas == 0) return {};
  int64_t most = 0;
  for (const RankPlan& p : plans) most = std::max(most, p.bytes.total() + p.host_bytes);
  return fmt::format("a process will hold about {:.0f} MiB at its peak\n", mib(before_arenas + most));
}

std::string heading(const Planned& p) {
  const int64_t all = parameter_count(p.model), trained = trainable_parameters(p.model, p.layout);
  return fmt::format("{} parameters, {} of them train ({:.2f} %); {} ranks: tp {} · pp {} · dp {}\n{}{}{}\n", all,
                     trained, 100.0 * static_cast<double>(trained) / static_cast<double>(all), p.shape.size(),
                     p.shape.tp(), p.shape.pp(), p.shape.dp(), p.multiplying, p.multiplying.empty() ? "" : "\n",
                     p.data ? "micro-batches as the data gives them"
                            : "micro-batches at their fullest (the data or the tokenizer is not here)");
}

}  // namespace

Exit run_plan(const PlanArguments& a, const Process& process) {
  check_machine_options(a);
  const Planned p = planned(a);
  if (p.device == DeviceKind::cpu && !a.machine.price.empty())
    fail(Fault::usage, "--price is of GPUs, and this plan is of a CPU: name the GPU (--gpu h100)");
  const int cores = process.threads * process.mpi.local_size;
  int64_t before_arenas = 0;
  if (p.device == DeviceKind::cpu) {
    const auto backend = make_cpu_backend(std::max(1, cores / p.shape.size()));
    before_arenas =
        predicted_process_bytes(held_by_a_rank(p, process.mpi), {}, *backend, p.settings.capacity.most_tokens());
  }
  const std::vector<RankPlan> plans = plan_mesh(p.settings, p.shape);
  const std::string schedule = print(schedule_of_run(p.settings, p.shape));
  const PlannedMachine machine = a.machine.gpu.empty() ? planned_machine(p.device, p.shape.size(), cores, a.calibration)
                                                       : machine_of_table(machine_of(a.machine));
  const PlannedWork work = planned_work(p.read.recipe, p.settings, p.shape, p.data ? &*p.data : nullptr);
  const TimePlan time = plan_time(p.settings, p.shape, work, machine);
  const std::optional<Prices> prices =
      a.machine.price.empty() ? std::nullopt : std::optional(read_prices(a.machine.price));
  const PreparedData* data = p.data ? &*p.data : nullptr;
  const DiskPlan disk = plan_disk(p.read.recipe, p.model, p.layout, p.shape, data, time.steps);
  const RunEstimate run = estimate_of(time, p.shape.size());
  if (a.recipe.json) {
    nlohmann::ordered_json json = plan_json({plans, p.model, p.layout, schedule, before_arenas}, time, machine, disk);
    if (prices) {
      json["cost"] = cost_json(run, *prices);
      json["cost"]["of"] = time.steps > 0 ? "run" : "step";
    }
    std::cout << json.dump(1) << '\n';
    return Exit::done;
  }
  std::cout << heading(p) << print_plan(plans, a.all ? Lines::of_each_rank : Lines::of_equal_ranks)
            << print_streaming(plans) << print_process(plans, before_arenas) << print_disk(disk)
            << print_time(time, p.shape, machine.name)
            << (prices ? (time.steps > 0 ? "" : "of one step: ") + print_cost(run, *prices) : "")
            << "schedule of the stages:\n"
            << schedule << loads_in(adapter_config(p.read)) << '\n';
  return Exit::done;
}

namespace {

Exit run_search(const PlanArguments& a) {
  if (a.machine.gpu.empty()) fail(Fault::usage, "drover plan --gpus needs --gpu: a name such as h100");
  if (a.ranks || a.all || !a.calibration.empty() || !a.machine.price.empty()) {
    fail(Fault::usage,
         "drover plan --gpus looks for the best layout of so many GPUs by the hardware table: leave --ranks, --all, "
         "--calibration and --price out, and plan what it finds with them");
  }
  const ReadRecipe read = read_run_recipe(a.recipe);
  const ModelConfig model = model_config_of(read.recipe, ShapeFrom::directory_or_name);
  const SearchQuestion question{read, model, machine_of(a.machine), gpu_counts(a.machine.gpus)};
  const SearchResult result = search(question);
  std::cout << (a.recipe.json ? search_json(question, result).dump(1) + "\n" : print_search(question, result));
  return Exit::done;
}

// Of this machine.
Exit run_answer_plan(const PlanArguments& a, const Process& process) {
  const AnswerQuestion question = answer_question_of(a.serving, a.machine);
  const PlannedMachine machine =
      planned_machine(DeviceKind::cpu, 1, process.threads * process.mpi.local_size, a.calibration);
  const AnswerTime time = answer_time(question, machine);
  std::cout << (a.recipe.json ? answer_json(time, machine).dump(1) + "\n" : print_answer(question, time, machine));
  return Exit::done;
}

Exit run_serving_plan(const PlanArguments& a) {
  check_machine_options(a);
  const ServingQuestion question = question_of(a.serving, a.machine);
  const ServingPlan plan = plan_serving(question);
  std::cout << (a.recipe.json ? serving_json(question, plan).dump(1) + "\n" : print_serving(question, plan));
  return Exit::done;
}

}  // namespace

Verb plan_verb(CLI::App& app) {
  const auto a = std::make_shared<PlanArguments>();
  CLI::App* options = app.add_subcommand(
      "plan",
      "what every rank will hold, how long it takes and costs; with --serve what serving does. No weights, no MPI");
  add_recipe_options(options, a->recipe);
  options->get_option("recipe")->required(false);
  options->add_option("--ranks", a->ranks, "number of ranks (default: tp·pp·dp of the recipe)")->check(above_zero());
  options->add_flag("--all", a->all, "a line for every rank, also where several hold the same");
  options->add_option("--calibration", a->calibration,
                      "measured rates to take (default: this machine's, which drover doctor --calibrate writes)");
  add_machine_options(options, a->machine);
  add_serving_options(options, a->serving);
  for (const char* of_runs : {"recipe", "--ranks", "--all"})
    options->get_option("--serve")->excludes(options->get_option(of_runs));
  options->footer(
      "example: drover plan configs/recipes/llama3.1-405b-lora.yaml --ranks 32\n"
      "example: drover plan configs/recipes/llama3.1-70b-lora.yaml --gpus 8..64 --gpu h100\n"
      "example: drover plan --serve --model llama3.1-405b --weights fp8 --gpu h100 --gpus 8 --prompt-tokens 1000 "
      "--answer-tokens 500 --price configs/planning/prices.example.yaml");
  return {.options = options, .run = [a](const Process& process) {
            if (a->serving.serve) return a->machine.gpu.empty() ? run_answer_plan(*a, process) : run_serving_plan(*a);
            if (a->recipe.words.empty()) fail(Fault::usage, "drover plan needs a recipe, or --serve with its options");
            if (!a->machine.gpus.empty()) return run_search(*a);
            return run_plan(*a, process);
          }};
}

}  // namespace drover
