// drover train: the ranks agree on program and recipe, become a mesh, and train.
#include "configs/recipe.h"
#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "launch/open_device.h"
#include "launch/planned_machine.h"
#include "launch/verbs/plan.h"
#include "launch/verbs/run_recipe.h"
#include "launch/verbs/verb.h"
#include "trainer/export/adapter_targets.h"
#include "trainer/run/run.h"
#include "trainer/setup/adapter_setup.h"
#include "trainer/setup/inputs.h"
#include "trainer/setup/recipe_check.h"

namespace drover {

namespace {

struct Arguments {
  RecipeArguments recipe;
  bool dry_run = false, help_keys = false;
};

std::optional<std::string> answer(const Arguments& a) {
  if (a.help_keys) return recipe_help();
  if (!a.recipe.json || a.dry_run) return std::nullopt;
  fail(Fault::usage,
       "train --json needs --dry-run; a run writes its results as JSON lines to output.dir/metrics.jsonl");
}

Exit run(const Process& process, const Arguments& a) {
  if (a.recipe.words.empty()) fail(Fault::usage, "train needs a recipe: drover train RECIPE.yaml");
  const int ranks = process.mpi.size;
  if (a.dry_run) {
    if (process.mpi.rank != 0) return Exit::done;
    return run_plan({.recipe = a.recipe, .ranks = ranks > 1 ? std::optional<int>(ranks) : std::nullopt}, process);
  }
  ReadRecipe read;
  MeshShape shape;
  check_same_program(process);
  together(*process.world, [&] {
    read = read_run_recipe(a.recipe);
    device_of(read.recipe);
    shape = check_recipe(read, model_config_of(read.recipe, ShapeFrom::directory), ranks, Inputs::must_exist);
  });
  check_same(*process.world, "the recipe", resolved_recipe(read));
  Mesh mesh = make_mesh(shape);
  log::info("{} {} × {} {}: tp {} · pp {} · dp {}", ranks, ranks == 1 ? "rank" : "ranks", process.threads,
            process.threads == 1 ? "thread" : "threads", shape.tp(), shape.pp(), shape.dp());
  log::write(loads_in(adapter_config(read)));
  const auto open = [&](const Mesh& host) { return open_device(host, read.recipe, process); };
  const auto machine_of = [&](const Device&) {
    const DeviceKind device = device_of(read.recipe);
    const int here = process.mpi.local_size, cores = process.threads * here;
    try {
      return planned_machine(device, here, cores, "");
    } catch (const Error& error) {
      log::warn("the time is planned without a calibration: {}", error.what());
      return uncalibrated_machine(device, here, cores);
    }
  };
  return exit_of(train(read, mesh, open, machine_of));
}

}  // namespace

Verb train_verb(CLI::App& app) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* options =
      app.add_subcommand("train", "train; continues by itself where output.dir holds a checkpoint of the same run");
  options->add_option("recipe", a->recipe.words, "RECIPE.yaml, then any section.key=value");
  options->add_flag("--dry-run", a->dry_run, "plan only");
  options->add_flag("--help-keys", a->help_keys, "list every key of a recipe");
  options->add_flag("--json", a->recipe.json,
                    "with --dry-run: as JSON (a run's results are lines of output.dir/metrics.jsonl)");
  options->footer(
      "example: launch/run -n 2 drover train configs/recipes/smollm2-135m-handbook.yaml optim.learning_rate=1e-3");
  return {.options = options,
          .run = [a](const Process& process) { return run(process, *a); },
          .by_many = true,
          .answer = [a] { return answer(*a); },
          .on_stop = [a] { return a->dry_run ? OnStop::end : OnStop::save; }};
}

}  // namespace drover
