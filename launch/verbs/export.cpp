// drover export: an adapter or a merged model, out of a checkpoint, read back and checked.
#include "trainer/export/export.h"

#include <iostream>
#include <nlohmann/json.hpp>

#include "kernels/base/log.h"
#include "kernels/base/program.h"
#include "kernels/cpu/cpu_backend.h"
#include "launch/verbs/verb.h"
#include "model/files/staged_directory.h"
#include "trainer/export/verify_export.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/run_identity.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/model_check.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

struct Arguments {
  std::string run, adapter, merged, target;
  std::optional<int64_t> step;
  bool json = false;
};

std::optional<std::string> answer(const Arguments& a) {
  if (a.target.empty()) return std::nullopt;
  fail(Fault::usage,
       "export --target is not built yet; --adapter DIR is what PEFT and vLLM load, --merged DIR is a Hugging Face "
       "model");
}

// How far the logits of a merged model may be off: contract.md's bound where the base is kept in fp32, else what one
// rounding of the weights to bf16 moves.
double merged_bound(ModelDirectory& base) {
  const std::vector<ParamSpec> table = weight_table(base.config());
  const bool fp32 = std::all_of(table.begin(), table.end(),
                                [&](const ParamSpec& spec) { return base.dtype(spec.name) == StoredType::f32; });
  return fp32 ? 1e-5 : 0.05;
}

void verify_merged(const Process& process, const Checkpoint& checkpoint, ModelDirectory& base, const fs::path& merged,
                   const fs::path& out) {
  const StagedDirectory probe(out.string() + ".probe");  // never committed
  const fs::path adapter = probe.path() / "adapter";
  export_adapter(checkpoint, DType::f32, adapter);
  const std::optional<MergedCheck> check = check_merged_logits(base.path(), adapter, merged, process.threads);
  if (!check) {
    log::warn(
        "the merged model's logits were not compared: this machine has not the memory to run it in fp32. Every merged "
        "weight was checked by itself");
    return;
  }
  if (!(check->difference <= merged_bound(base))) {
    fail(Fault::corruption,
         "the merged model's logits are off by {:.2e} from base and adapter together (the adapter moves them by "
         "{:.2e}); {} was not written",
         check->difference, check->effect, out.string());
  }
  log::info(
      "logits of the merged model: off by {:.1e} from base and adapter together; the adapter moves them by {:.1e}",
      check->difference, check->effect);
}

Exit run(const Process& process, const Arguments& a) {
  if (a.adapter.empty() && a.merged.empty()) fail(Fault::usage, "export needs --adapter DIR or --merged DIR");
  const fs::path run = a.run;
  if (!fs::exists(run / "recipe.yaml"))
    fail(Fault::missing_input, "{} holds no recipe.yaml; a run's directory is the output.dir of its recipe",
         run.string());
  const ReadRecipe read = read_recipe(run / "recipe.yaml", {});
  std::optional<Checkpoint> checkpoint;
  if (a.step) {
    const fs::path directory = run / fmt::format("step-{}", *a.step);
    if (!fs::exists(directory)) {
      std::vector<int64_t> steps;
      for (const auto& [step, path] : checkpoint_directories(run)) steps.push_back(step);
      fail(Fault::missing_input, "{} does not exist; the run holds {}", directory.string(),
           steps.empty() ? "no checkpoint" : fmt::format("checkpoints of step {}", fmt::join(steps, ", ")));
    }
    checkpoint = Checkpoint::open(directory);
  } else {
    checkpoint = Checkpoint::latest(run, [](const std::string& text) { log::warn("{}", text); });
    if (!checkpoint) fail(Fault::missing_input, "{} holds no checkpoint that verifies; train it first", run.string());
  }
  if (!a.adapter.empty()) {
    export_adapter(*checkpoint, dtype_of(read.recipe.output.adapter_dtype), a.adapter);
    log::info("the adapter of step {} is in {}, read back and checked", checkpoint->state().step, a.adapter);
  } else {
    ModelDirectory base(read.recipe.model.path);
    const auto alone = make_self_communicator("world");
    check_same_adapter(*checkpoint, read.recipe, check_weights_together(base, {0, base.config().layers}, *alone));
    export_merged(*checkpoint, base, a.merged, *make_cpu_backend(process.threads),
                  [&](const fs::path& staged) { verify_merged(process, *checkpoint, base, staged, a.merged); });
    log::info(
        "the merged model of step {} is in {}, read back and checked\n  try it: {} generate --model {} --prompt \"…\" "
        "--greedy",
        checkpoint->state().step, a.merged, shell_quoted(program_name()), shell_quoted(a.merged));
  }
  if (a.json)
    std::cout << ordered_json{{a.adapter.empty() ? "merged" : "adapter", a.adapter.empty() ? a.merged : a.adapter},
                              {"step", checkpoint->state().step}}
                     .dump()
              << '\n';
  return Exit::done;
}

}  // namespace

Verb export_verb(CLI::App& app) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* options = app.add_subcommand("export", "an adapter or a merged model out of a run");
  options->add_option("run", a->run, "the run's directory (output.dir)")->required();
  auto* adapter = options->add_option("--adapter", a->adapter, "write a PEFT adapter here");
  options->add_option("--merged", a->merged, "write a merged model here")->excludes(adapter);
  options->add_option("--target", a->target, "not built yet");
  options->add_option("--step", a->step, "from this checkpoint (default: the latest)");
  options->add_flag("--json", a->json, "print what was written as JSON");
  options->footer("example: drover export runs/handbook --merged models/handbook-merged");
  return {.options = options,
          .run = [a](const Process& process) { return run(process, *a); },
          .answer = [a] { return answer(*a); }};
}

}  // namespace drover
