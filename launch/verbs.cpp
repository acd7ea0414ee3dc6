// train, plan, prepare, tokenize, export, import, doctor: each a few lines over the libraries.
#include "launch/open_device.h"
#include "launch/verbs.h"

#include <dnnl.h>
#include <mpi.h>
#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "kernels/base/hdf5.h"
#include "kernels/base/log.h"
#include "kernels/base/program.h"
#include "kernels/comm/agree.h"
#include "kernels/devices/devices.h"
#include "model/files/import_gguf.h"
#include "model/files/staged_directory.h"
#include "trainer/checkpoint.h"
#include "trainer/export.h"
#include "trainer/model_check.h"
#include "trainer/recipe_check.h"
#include "trainer/run.h"
#include "trainer/run_identity.h"
#include "trainer/setup.h"
#include "trainer/verify_export.h"

namespace drover {

using nlohmann::ordered_json;

namespace {

ordered_json plan_json(const std::vector<RankPlan>& plans, const ModelConfig& model, const AdapterLayout& layout, const std::string& schedule) {
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
  }
  return {{"ranks", ranks}, {"parameters", parameter_count(model)}, {"trainable_parameters", trainable_parameters(model, layout)}, {"schedule", schedule}};
}

}  // namespace

Exit run_train(const Process& process, const RecipeArguments& a, bool dry_run) {
  if (a.recipe.empty()) fail(Exit::usage, "train needs a recipe: drover train RECIPE.yaml");
  const int ranks = process.mpi.size;
  if (dry_run) return process.mpi.rank == 0 ? run_plan(a, ranks > 1 ? std::optional<int>(ranks) : std::nullopt) : Exit::done;
  ReadRecipe read;
  MeshShape shape;
  check_same_program(process);
  together(*process.world, [&] {
    read = read_recipe(a.recipe, a.overrides);
    device_of(read.recipe);
    shape = check_recipe(read, model_config_of(read.recipe, false), ranks, Inputs::must_exist);
  });
  check_same(*process.world, "the recipe", resolved_recipe(read));
  Mesh mesh = make_mesh(shape);
  log::info("{} {} × {} {}: tp {} · pp {} · dp {}", ranks, ranks == 1 ? "rank" : "ranks", process.threads,
            process.threads == 1 ? "thread" : "threads", shape.tp(), shape.pp(), shape.dp());
  return train(read, mesh, [&](const Mesh& host) { return open_device(host, read.recipe, process); });
}

Exit run_plan(const RecipeArguments& a, std::optional<int> ranks) {
  const ReadRecipe read = read_recipe(a.recipe, a.overrides);
  const Recipe& recipe = read.recipe;
  const ModelConfig model = model_config_of(recipe, true);
  const int64_t stated = recipe.parallel.tp * recipe.parallel.pp * recipe.parallel.dp.value_or(1);
  const MeshShape shape = check_recipe(read, model, ranks.value_or(static_cast<int>(stated)), Inputs::may_be_absent);
  const AdapterLayout layout = adapter_layout_of(model, adapter_config(read));
  // With the data and a tokenizer at hand the plan knows the real micro-batches; without, they are full.
  std::optional<PreparedData> data;
  const fs::path text = tokenizer_directory(recipe);
  const auto here = [](const std::vector<DataFile>& files) { return std::all_of(files.begin(), files.end(), [](const DataFile& f) { return fs::exists(f.path); }); };
  const bool have_data = (fs::exists(text / "tokenizer.json") || fs::exists(text / "tokenizer.model")) && here(recipe.data.train) && here(recipe.data.validation.files) &&
                         (!recipe.eval.prompts || fs::exists(*recipe.eval.prompts));
  if (have_data) {
    const Tokenizer tokenizer = Tokenizer::open(tokenizer_directory(recipe));
    data = prepare_data_in_memory(recipe, tokenizer);
  }
  EngineSettings settings = engine_settings(recipe, model, layout, shape, data ? &*data : nullptr);
  const bool on_cuda =
      recipe.device == DeviceChoice::cuda || (recipe.device == DeviceChoice::automatic && cuda_status().usable);
  settings.traits = traits_of(on_cuda ? DeviceKind::cuda : DeviceKind::cpu);
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
            << (have_data ? "micro-batches as the data gives them\n"
                          : "micro-batches at their fullest (the data or the tokenizer is not here)\n")
            << print_plan(plans) << "schedule of the stages:\n"
            << schedule;
  return Exit::done;
}

Exit run_prepare(const RecipeArguments& a) {
  const ReadRecipe read = read_recipe(a.recipe, a.overrides);
  const Tokenizer tokenizer = Tokenizer::open(tokenizer_directory(read.recipe));
  const auto world = make_self_communicator("world");
  const PreparedData data = prepare_data(read.recipe, tokenizer, *world);
  const bool colour = isatty(STDOUT_FILENO) != 0;
  if (a.json) {
    std::cout << ordered_json{{"documents", data.train.documents()}, {"rows", data.train.rows()}, {"tokens", data.train.tokens()},
                              {"trained_tokens", data.train.trained_tokens(0, data.train.documents())}}.dump() << '\n';
    return Exit::done;
  }
  std::cout << "The first document, its trained tokens " << (colour ? "coloured" : "in [[ ]]") << ":\n"
            << show(data.train.document(0), tokenizer, colour ? "\033[32m" : "[[", colour ? "\033[0m" : "]]") << '\n';
  return Exit::done;
}

Exit run_tokenize(const TokenizeArguments& a) {
  if (!a.has_text && a.file.empty()) fail(Exit::usage, "tokenize needs --text TEXT or --file FILE");
  const Tokenizer tokenizer = Tokenizer::open(a.model);
  const std::string text = a.has_text ? a.text : read_text(a.file);
  std::cout << ordered_json{{"ids", a.special ? tokenizer.encode_special(text) : tokenizer.encode(text)}}.dump() << '\n';
  return Exit::done;
}

namespace {

// How far the logits of a merged model may be off: contract.md's bound where the base is kept in fp32, else what one rounding of the weights to bf16 moves.
double merged_bound(ModelDirectory& base) {
  const std::vector<ParamSpec> table = weight_table(base.config());
  const bool fp32 = std::all_of(table.begin(), table.end(), [&](const ParamSpec& spec) { return base.dtype(spec.name) == StoredType::f32; });
  return fp32 ? 1e-5 : 0.05;
}

void verify_merged(const Process& process, const Checkpoint& checkpoint, ModelDirectory& base, const fs::path& merged, const fs::path& out) {
  const StagedDirectory probe(out.string() + ".probe");  // never committed
  const fs::path adapter = probe.path() / "adapter";
  export_adapter(checkpoint, DType::f32, adapter);
  const std::optional<MergedCheck> check = check_merged_logits(base.path(), adapter, merged, process.threads);
  if (!check) {
    log::warn("the merged model's logits were not compared: this machine has not the memory to run it in fp32. Every merged weight was checked by itself");
    return;
  }
  if (!(check->difference <= merged_bound(base))) {
    fail(Exit::corruption, "the merged model's logits are off by {:.2e} from base and adapter together (the adapter moves them by {:.2e}); {} was not written", check->difference, check->effect,
         out.string());
  }
  log::info("logits of the merged model: off by {:.1e} from base and adapter together; the adapter moves them by {:.1e}", check->difference, check->effect);
}

}  // namespace

Exit run_export(const Process& process, const ExportArguments& a) {
  if (a.adapter.empty() && a.merged.empty()) fail(Exit::usage, "export needs --adapter DIR or --merged DIR");
  const fs::path run = a.run;
  if (!fs::exists(run / "recipe.yaml")) fail(Exit::missing_input, "{} holds no recipe.yaml; a run's directory is the output.dir of its recipe", run.string());
  const ReadRecipe read = read_recipe(run / "recipe.yaml", {});
  std::optional<Checkpoint> checkpoint;
  if (a.step) {
    const fs::path directory = run / fmt::format("step-{}", *a.step);
    if (!fs::exists(directory)) {
      std::vector<int64_t> steps;
      for (const auto& [step, path] : checkpoint_directories(run)) steps.push_back(step);
      fail(Exit::missing_input, "{} does not exist; the run holds {}", directory.string(), steps.empty() ? "no checkpoint" : fmt::format("checkpoints of step {}", fmt::join(steps, ", ")));
    }
    checkpoint = Checkpoint::open(directory);
  } else {
    checkpoint = Checkpoint::latest(run, [](const std::string& text) { log::warn("{}", text); });
    if (!checkpoint) fail(Exit::missing_input, "{} holds no checkpoint that verifies; train it first", run.string());
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
    log::info("the merged model of step {} is in {}, read back and checked\n  try it: {} generate --model {} --prompt \"…\" --greedy", checkpoint->state().step, a.merged, program_name(), a.merged);
  }
  if (a.json) std::cout << ordered_json{{a.adapter.empty() ? "merged" : "adapter", a.adapter.empty() ? a.merged : a.adapter}, {"step", checkpoint->state().step}}.dump() << '\n';
  return Exit::done;
}

Exit run_import(const std::string& gguf, const std::string& directory) {
  import_gguf(gguf, directory);
  log::info("{} is a Hugging Face model directory now\n  try it: {} generate --model {} --prompt \"…\" --greedy", directory, program_name(), directory);
  return Exit::done;
}

std::string version_text() {
  char mpi[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(mpi, &length);
  const std::string name(mpi, static_cast<size_t>(length));
  const dnnl_version_t* dnnl = dnnl_version();
  const std::string cuda = cuda_libraries();
  return fmt::format("drover {} ({})\nbackends  cpu, count{}\noneDNN    {}.{}.{}\nMPI       {}\nHDF5      {}\nyaml-cpp  {}\n{}", DROVER_VERSION,
                     std::string_view(DROVER_COMMIT).empty() ? "no commit known" : DROVER_COMMIT, cuda.empty() ? "" : ", cuda", dnnl->major, dnnl->minor, dnnl->patch, name.substr(0, name.find_first_of(",\n")),
                     hdf5::library_version(), DROVER_YAML_CPP_VERSION,
                     cuda.empty() ? "" : fmt::format("CUDA      {}\n", cuda));
}

}  // namespace drover
