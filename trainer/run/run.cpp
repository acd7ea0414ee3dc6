#include "trainer/run/run.h"

#include "kernels/base/log.h"
#include "kernels/base/program.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "kernels/comm/observed.h"
#include "trainer/export/compared_documents.h"
#include "trainer/export/export.h"
#include "trainer/export/export_check.h"
#include "trainer/export/model_card.h"
#include "trainer/export/text_files.h"
#include "trainer/run/run_identity.h"
#include "trainer/run/run_plan.h"
#include "trainer/run/training_loop.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/fp8_linears.h"
#include "trainer/setup/inputs.h"

namespace drover {

namespace {

constexpr double kWatchdogPatience = 1.5;  // × the deadline of waiting for a peer, which can say more

void check_moves(const LearningRate& rate, const OptimSection& optim, int64_t steps) {
  if (rate.moves()) return;
  fail(Fault::bad_recipe,
       "the learning rate is 0 in all {} steps, so that nothing would be learnt: optim.learning_rate is {}, and with "
       "warm-up the first step has rate 0; train more steps or set optim.warmup_steps to 0",
       steps, optim.learning_rate);
}

struct Start {
  int64_t done = 0;    // steps
  int64_t saved = -1;  // the step of the newest checkpoint of this directory that the run continues from; none: -1
  BestValidation best;
};

// With checkpoint.keep_best only a best that `run` still holds counts.
BestValidation best_of(const Checkpoint& checkpoint, const Recipe& recipe, const RunDirectory& run, bool of_this_run) {
  BestValidation best = checkpoint.state().best;
  if (!recipe.checkpoint.keep_best || best.step == 0) return best;
  std::error_code ignored;
  if (of_this_run && fs::exists(run.checkpoint(best.step) / "manifest.json", ignored)) return best;
  log::warn("the checkpoint of the best validation so far, after step {}, was not kept; the best is looked for anew",
            best.step);
  return {.last = best.last};
}

void begin_from(const fs::path& directory, ModelDirectory& model, AdapterSet& adapter) {
  if (!keeps_base(AdapterFile(directory), model)) {
    fail(Fault::bad_data,
         "lora.init_from {}: the adapter's own weights of {} are others than the model's; merge it (export --model DIR "
         "--from ADAPTER --merged OUT), and train on the merged model",
         directory.string(), fmt::join(AdapterFile(directory).weights(), ", "));
  }
  load_adapter(directory, model.config(), adapter);
}

// Gives the adapter its values: of a checkpoint, of lora.init_from, or drawn.
Start set_adapter(const Recipe& recipe, const std::map<std::string, std::string>& identity, int64_t steps,
                  RunDirectory& directory, ModelDirectory& model, Replica& replica) {
  Communicator& world = *replica.device.mesh.world;
  std::optional<Checkpoint> checkpoint;
  together(world, [&] {
    checkpoint = directory.to_resume(recipe.checkpoint.resume, identity);
    if (!checkpoint) return;
    if (checkpoint->state().step > steps) {
      fail(Fault::bad_recipe,
           "{} has done {} steps, and the recipe asks for {} in all; raise train.max_steps or train.epochs, choose a "
           "new output.dir, or start over with checkpoint.resume: never",
           checkpoint->directory().string(), checkpoint->state().step, steps);
    }
    replica.load(*checkpoint);
  });
  Start start;
  if (checkpoint) {
    start.done = checkpoint->state().step;
    std::error_code other;
    if (fs::equivalent(checkpoint->directory(), directory.checkpoint(start.done), other)) start.saved = start.done;
    log::info("resuming after step {} from {}", start.done, checkpoint->directory().string());
    start.best = best_of(*checkpoint, recipe, directory, start.saved >= 0);
    if (validates_otherwise(*checkpoint, identity))
      log::info("the validation data are others than before (data.validation): losses over them are no series");
  } else if (recipe.lora.init_from) {
    together(world, [&] { begin_from(*recipe.lora.init_from, model, *replica.adapter); });
    log::info("starting from the adapter {}", *recipe.lora.init_from);
  } else {
    replica.adapter->initialise(static_cast<uint64_t>(recipe.train.seed));
  }
  return start;
}

// From the last checkpoint, so that what is exported is what could go on; and it computes what was trained, or does not
// appear.
void export_checked(const ReadRecipe& read, const RunDirectory& directory, int64_t step, Engine& engine,
                    const PreparedData& data) {
  const Recipe& recipe = read.recipe;
  const ModelConfig& model = engine.settings().model;
  Communicator& world = *engine.replica().device.mesh.world;
  std::optional<Checkpoint> checkpoint;  // of rank 0, as the next two
  std::optional<StagedAdapter> staged;
  std::string place;
  together(world, [&] {
    if (world.rank() != 0) return;
    checkpoint = Checkpoint::open(directory.checkpoint(step));
    staged.emplace(adapter_of(*checkpoint), dtype_of(recipe.output.adapter_dtype), directory.adapter(),
                   text_files(recipe, model));
    place = staged->path().string();
  });
  Comparison comparison =
      compare_trained(engine, compared_documents(recipe, data), world.gather_strings(place).front());
  comparison.rows = rows_compared(recipe);
  comparison.step = step;
  comparison.adapter_dtype = dtype_of(recipe.output.adapter_dtype);
  comparison.why["merged"] = "a run has room for one copy of the weights; drover export of the run compares it";
  together(world, [&] {
    check(comparison, directory.adapter().string(),
          fmt::format("the checkpoint {} is untouched: try drover export {} --adapter DIR",
                      directory.checkpoint(step).string(), shell_quoted(directory.path().string())));
    if (world.rank() != 0) return;
    write_pages(
        staged->path(), staged->has_page(),
        {read, model, checkpoint->state(), losses_of_step(directory.path() / "metrics.jsonl", step), comparison});
    staged->commit();
  });
  say(comparison);
}

// With checkpoint.keep_best the adapter is that of the lowest validation loss. The step it is of.
int64_t take_best(const Recipe& recipe, const BestValidation& best, int64_t last, const RunDirectory& directory,
                  Replica& replica) {
  if (!recipe.checkpoint.keep_best || best.step == 0) return last;
  log::info("the lowest validation loss is {:.4f}, after step {}: the adapter is that step's (checkpoint.keep_best)",
            best.loss, best.step);
  if (best.step != last)
    together(*replica.device.mesh.world, [&] { replica.load(Checkpoint::open(directory.checkpoint(best.step))); });
  return best.step;
}

void say_stopped(const RunDirectory& directory, int64_t done, int64_t steps) {
  log::info("stopped after step {} of {}; {} is saved. Start the same command again to go on.", done, steps,
            directory.checkpoint(done).string());
}

// `step`: of a checkpoint that is not the newest.
void say_done(const Recipe& recipe, const RunDirectory& directory, std::optional<int64_t> step) {
  const std::string adapter = directory.adapter().string(), program = shell_quoted(program_name());
  const auto quoted = [](const fs::path& path) { return shell_quoted(path.string()); };
  std::string settings;  // what generate would not know from the two directories
  if (recipe.data.template_date != DataSection{}.template_date)
    settings += " " + shell_quoted("data.template_date=" + recipe.data.template_date);
  if (recipe.model.weights != ModelSection{}.weights)
    settings += fmt::format(" model.weights={}", word_of(recipe.model.weights));
  log::info(
      "done. The adapter is in {}\n"
      "  try it:   {} generate --model {} --adapter {} --prompt \"…\" --greedy{}\n"
      "  merge it: {} export {} --merged {}{}",
      adapter, program, shell_quoted(recipe.model.path), quoted(adapter), settings, program, quoted(directory.path()),
      quoted(directory.path() / "merged"), step ? fmt::format(" --step {}", *step) : "");
}

Loader loader_of(const PreparedData& data, const Recipe& recipe, const Mesh& mesh, uint64_t seed) {
  return Loader(data.train, {.micro_batch_size = recipe.train.micro_batch_size,
                             .global_batch_size = recipe.train.global_batch_size,
                             .shuffle = recipe.data.shuffle,
                             .seed = seed,
                             .dp_rank = mesh.position.dp(),
                             .dp_size = mesh.shape.dp()});
}

std::map<std::string, std::string> identity_of(const Recipe& recipe, const RunInputs& inputs) {
  const bool own_validation = !recipe.data.validation.files.empty();
  return run_identity(recipe, inputs.fingerprint, inputs.data.train.identity(),
                      own_validation ? inputs.data.validation->identity() : "");
}

// Everything outlives them.
EngineSettings settings_of(const Recipe& recipe, RunInputs& inputs, const Mesh& mesh) {
  EngineSettings settings;
  together(*mesh.world,
           [&] { settings = engine_settings(recipe, inputs.model.config(), inputs.layout, mesh.shape, &inputs.data); });
  settings.stored = [&](const ParamSpec& spec) { return inputs.model.scaling(spec.name); };
  return settings;
}

// With log.trace its messages can be seen.
Device opened(const OpenDevice& open_device, const Mesh& mesh, const Recipe& recipe, MessageView& messages) {
  Device device = open_device(mesh);
  if (!recipe.log.trace.empty()) device.mesh = observed_mesh(device.mesh, messages);
  return device;
}

// The settings become the device's, and what it multiplies in fp8 is said.
void fit(EngineSettings& settings, const Device& device, const Mesh& mesh) {
  fit_to(device, settings);
  std::string line;
  together(*mesh.world, [&] { line = fp8_linears(settings, mesh.shape); });
  if (!line.empty()) log::info("{}", line);
}

}  // namespace

StopReason train(const ReadRecipe& read, const Mesh& mesh, const OpenDevice& open_device,
                 const MachineOfRun& machine_of) {
  const Recipe& recipe = read.recipe;
  Communicator& world = *mesh.world;
  RunDirectory directory(recipe.output.dir, world);
  RunInputs inputs = open_inputs(read, mesh);
  EngineSettings settings = settings_of(recipe, inputs, mesh);
  MessageView messages;
  const Device device = opened(open_device, mesh, recipe, messages);
  fit(settings, device, mesh);
  const RunPlan plan = plan_run(recipe, settings, inputs.data, device, machine_of);
  std::optional<OpTimer> timer;
  if (recipe.log.profile) timer.emplace(*device.backend);
  const std::unique_ptr<Replica> replica = open_replica(settings, device, BaseWeights(inputs.model), plan.arenas);
  std::optional<Engine> engine;
  together(world, [&] { engine.emplace(settings, *replica, plan.arenas.saved); });
  const Loader loader = loader_of(inputs.data, recipe, mesh, settings.seed);
  const int64_t steps = total_steps(recipe, loader.steps_per_epoch());
  check_moves(settings.optimizer.learning_rate, recipe.optim, steps);
  log::info("{} rows a step, {} steps an epoch, {} steps in all", recipe.train.global_batch_size,
            loader.steps_per_epoch(), steps);
  const auto identity = identity_of(recipe, inputs);
  const Start start = set_adapter(recipe, identity, steps, directory, inputs.model, *replica);
  directory.accept(read, start.done, start.saved, steps, plan.json);
  Validator validation(recipe, inputs, *engine, world, directory);
  validation.look_back(start.done, start.best);

  // Only from here on: reading large data and weights takes as long as it takes.
  Watchdog watchdog(fmt::format("rank {}", world.rank()),
                    std::chrono::duration<double>(kWatchdogPatience * comm_deadline_seconds()));
  const auto save = [&](int64_t step) {
    watchdog.beat(fmt::format("saving after step {}", step));
    const StreamPosition next = loader.position_of(step);
    directory.save({step, identity, next.epoch, next.step, inputs.adapter_config, validation.best()},
                   *replica->trainables, replica->backend(), mesh, recipe.checkpoint);
  };
  TrainingLoop loop({.recipe = recipe,
                     .world = world,
                     .engine = *engine,
                     .loader = loader,
                     .validation = validation,
                     .directory = directory,
                     .watchdog = watchdog,
                     .plan = plan,
                     .timer = timer ? &*timer : nullptr,
                     .messages = messages,
                     .save = save},
                    steps, start.done, start.saved);
  if (const StopReason stop = loop.run(); stop != StopReason::none) {
    say_stopped(directory, loop.done(), steps);
    return stop;
  }
  watchdog.beat("exporting the adapter");
  loop.save_last();
  const int64_t exported = take_best(recipe, validation.best(), loop.done(), directory, *replica);
  export_checked(read, directory, exported, *engine, inputs.data);
  say_reached(plan, *engine, loop.tokens_per_second(), loop.done() > start.done ? directory.reached() : fs::path());
  say_done(recipe, directory, exported == loop.done() ? std::nullopt : std::optional(exported));
  return StopReason::none;
}

}  // namespace drover
