#include "trainer/run.h"

#include <chrono>
#include <cmath>
#include <deque>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "kernels/base/log.h"
#include "kernels/base/watchdog.h"
#include "kernels/base/program.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "trainer/checkpoint.h"
#include "trainer/evaluation.h"
#include "trainer/export.h"
#include "trainer/metrics.h"
#include "trainer/model_check.h"
#include "trainer/process_memory.h"
#include "trainer/profile.h"
#include "trainer/run_identity.h"
#include "trainer/run_lock.h"
#include "trainer/setup.h"
#include "trainer/stop_signal.h"

namespace drover {

namespace {

constexpr double kAdapterRounded = 0.05;  // ‖Δ‖/‖·‖ of log-probabilities that rounding an adapter's factors to bf16 may cause
constexpr double kWatchdogPatience = 1.5;  // × the deadline of waiting for a peer, which can say more

struct Outcome {
  StopReason stop = StopReason::none;
  int64_t steps = 0;
};

// All ranks learn of a signal that any of them got.
StopReason agreed_stop(Communicator& ranks) {
  double reason = static_cast<double>(static_cast<int>(stop_requested()));
  double flags[2] = {reason == 1 ? 1.0 : 0.0, reason == 2 ? 1.0 : 0.0};
  ranks.all_reduce(matrix(flags, 2, 1));
  return flags[1] > 0 ? StopReason::interrupted : flags[0] > 0 ? StopReason::preempted : StopReason::none;
}

bool asked_to_stop(Communicator& ranks) { return agreed_stop(ranks) != StopReason::none; }

class Training {
 public:
  Training(const ReadRecipe& read, const Mesh& mesh, const OpenDevice& open_device)
      : read_(read), recipe_(read.recipe), mesh_(mesh), world_(*mesh.world), run_(read.recipe.output.dir), open_device_(open_device) {}

  Exit run() {
    together(world_, [&] {
      if (world_.rank() != 0) return;
      make_directories(run_);
      lock_.emplace(run_);
      clean_up(run_);
    });
    open_inputs();
    build_engine();
    start_point();
    // Only from here on: reading large data and weights takes as long as it takes.
    watchdog_.emplace(fmt::format("rank {}", world_.rank()), std::chrono::duration<double>(kWatchdogPatience * comm_deadline_seconds()));
    engine_->on_progress([this] { watchdog_->beat(fmt::format("step {}", launched() + 1)); });
    const Outcome outcome = loop();
    if (outcome.stop != StopReason::none) return stopped(outcome);
    finish();
    return Exit::done;
  }

 private:
  void open_inputs() {
    together(world_, [&] {
      model_.emplace(recipe_.model.path);
      tokenizer_.emplace(Tokenizer::open(tokenizer_directory(recipe_)));
      adapter_config_ = adapter_config(read_);
      layout_ = adapter_layout_of(model_->config(), adapter_config_);
    });
    LayerRange layers;
    together(world_, [&] { layers = partition_layers(model_->config().layers, mesh_.shape.pp(), head_cost_in_layers(model_->config()))[static_cast<size_t>(mesh_.position.pp())]; });
    fingerprint_ = check_weights_together(*model_, layers, world_);
    data_ = prepare_data(recipe_, *tokenizer_, world_);
  }

  void build_engine() {
    EngineSettings settings;
    together(world_, [&] { settings = engine_settings(recipe_, model_->config(), layout_, mesh_.shape, &data_); });
    device_.emplace(open_device_(mesh_));
    settings.traits = device_->backend->traits();
    const std::vector<RankPlan> plans = plan_mesh(settings, mesh_.shape);
    log::info("\n{} parameters, {} of them train ({:.2f} %)\n{}", parameter_count(model_->config()), trainable_parameters(model_->config(), layout_),
              100.0 * static_cast<double>(trainable_parameters(model_->config(), layout_)) / static_cast<double>(parameter_count(model_->config())), print_plan(plans));
    const std::string schedule = print(schedule_of_run(settings, mesh_.shape));
    if (mesh_.shape.pp() > 1) log::info("schedule of the stages:\n{}", schedule);
    planned_ = plans[static_cast<size_t>(rank_of(mesh_.position, mesh_.shape))].bytes;
    predicted_bytes_ = largest(world_, predicted_process_bytes(planned_, *device_->backend));
    log::info("a process will hold about {:.0f} MiB at its peak, of that {:.0f} MiB in arenas", mib(predicted_bytes_), mib(planned_.total()));
    check_fits_machine(world_, predicted_bytes_);
    together(world_, [&] { check_fits_memory(planned_, *device_->backend); });
    Device device = *device_;
    if (recipe_.log.profile) device.backend = timed_ = std::make_shared<TimedBackend>(*device_->backend);
    replica_ = open_replica(settings, std::move(device), *model_, planned_);
    together(world_, [&] { engine_.emplace(settings, *replica_, planned_.saved); });
    loader_.emplace(data_.train, LoaderSettings{recipe_.train.micro_batch_size, recipe_.train.global_batch_size, recipe_.data.shuffle, settings.seed, mesh_.position.dp(), mesh_.shape.dp()});
    total_steps_ = total_steps(recipe_, loader_->steps_per_epoch());
    if (!learning_rate().moves()) {
      fail(Exit::bad_recipe, "the learning rate is 0 in all {} steps, so that nothing would be learnt: optim.learning_rate is {}, and with warm-up the first step has rate 0; train more steps or "
           "set optim.warmup_steps to 0", total_steps_, recipe_.optim.learning_rate);
    }
    log::info("{} rows a step, {} steps an epoch, {} steps in all", recipe_.train.global_batch_size, loader_->steps_per_epoch(), total_steps_);
  }

  void start_point() {
    identity_ = run_identity(recipe_, fingerprint_, data_.train.identity());
    AdapterSet& adapter = *replica_->adapter;
    std::optional<Checkpoint> checkpoint;
    together(world_, [&] {
      if (recipe_.checkpoint.resume == "auto") {
        checkpoint = Checkpoint::latest(run_, [](const std::string& text) { log::warn("{}", text); });
      } else if (recipe_.checkpoint.resume != "never") {
        checkpoint = Checkpoint::open(recipe_.checkpoint.resume);
      }
      if (!checkpoint) return;
      check_same_run(*checkpoint, identity_, run_);
      if (checkpoint->state().step > total_steps_) {
        fail(Exit::bad_recipe, "{} has done {} steps, and the recipe asks for {} in all; raise train.max_steps or train.epochs, choose a new output.dir, or start over with checkpoint.resume: never",
             checkpoint->directory().string(), checkpoint->state().step, total_steps_);
      }
      replica_->load(*checkpoint);
    });
    if (checkpoint) {
      done_ = checkpoint->state().step;
      std::error_code other;
      if (fs::equivalent(checkpoint->directory(), run_ / fmt::format("step-{}", done_), other)) saved_ = done_;
      log::info("resuming after step {} from {}", done_, checkpoint->directory().string());
    } else if (recipe_.lora.init_from) {
      together(world_, [&] { load_adapter(*recipe_.lora.init_from, model_->config(), adapter); });
      log::info("starting from the adapter {}", *recipe_.lora.init_from);
    } else {
      adapter.initialise(static_cast<uint64_t>(recipe_.train.seed));
    }
    together(world_, [&] {
      if (world_.rank() != 0) return;
      // This run is accepted: from here on the directory is its own.
      const auto [aside, to] = set_aside(run_, saved_);
      if (!aside.empty()) log::warn("{} of an earlier run {} now in {}", fmt::join(aside, ", "), aside.size() == 1 ? "is" : "are", to.string());
      write_text(run_ / "recipe.yaml", resolved_recipe(with_absolute_paths(read_)));
      metrics_.emplace(run_ / "metrics.jsonl", done_);
    });
    if (largest(world_, world_.rank() == 0 && was_validated() ? 1 : 0) == 1) validated_ = done_;
    reached_bytes_ = largest(world_, peak_process_bytes());
  }

  // Of rank 0: a run before this one validated the step that this one starts from.
  bool was_validated() const {
    return (!data_.validation || metrics_->validated_last_step()) && (data_.prompts.empty() || fs::exists(answers_file()));
  }

  void save() {
    watchdog_->beat(fmt::format("saving after step {}", done_));
    const StreamPosition next = loader_->position_of(done_);
    save_checkpoint(run_, {done_, identity_, next.epoch, next.step, adapter_config_}, *replica_->trainables, replica_->backend(),
                    mesh_);
    saved_ = done_;
    together(world_, [&] {
      if (world_.rank() == 0) prune_checkpoints(run_, recipe_.checkpoint.keep);
    });
  }

  // What cannot be written to the run's records ends the run, but with a checkpoint.
  void record(const std::function<void()>& write) {
    if (unrecorded_) return;
    try {
      together(world_, [&] {
        if (world_.rank() == 0) write();
      });
    } catch (const Error& error) {
      if (error.code() != Exit::io) throw;
      unrecorded_ = error;
    }
  }

  // Gives up when a stop was asked for; the run that goes on from here makes up for it.
  void validate(Progress& progress) {
    if (validated_ == done_) return;
    if (!data_.prompts.empty() && !answer_prompts(progress)) return;
    if (data_.validation) {
      const Evaluation e = evaluate_store(*engine_, *data_.validation, recipe_.train.micro_batch_size, recipe_.train.global_batch_size, {}, asked_to_stop);
      if (!e.complete) return;
      if (!std::isfinite(e.loss())) {
        progress.finish();
        fail(Exit::non_finite,
             "step {}: the validation loss is {}; the model's weights or the adapter overflow {}. The last checkpoint is "
             "untouched",
             done_, e.loss(), word_of(recipe_.train.dtype));
      }
      record([&] {
        progress.note(fmt::format("step {}: validation loss {:.4f}", done_, e.loss()));
        metrics_->validation(done_, e.loss(), data_.validation->tokens());
      });
    }
    validated_ = done_;
  }

  const LearningRate& learning_rate() const { return engine_->settings().optimizer.learning_rate; }

  int64_t launched() const { return done_ + static_cast<int64_t>(in_flight_.size()); }

  void launch() {
    std::unique_ptr<Moment> begin = device_->backend->moment();  // now, or when the step in flight ends
    Batch batch;
    together(world_, [&] { batch = loader_->load(loader_->position_of(launched())); });
    PendingStep pending = engine_->enqueue_step(batch, launched() + 1);
    in_flight_.push_back({std::move(pending), std::move(begin), device_->backend->moment(),
                          learning_rate().at(launched()), batch.tokens, batch.trained_tokens});
  }

  // Waits for steps, and writes what they gave, until at most `kept` are in flight.
  void settle(size_t kept, Progress& progress) {
    for (; in_flight_.size() > kept; in_flight_.pop_front(), ++done_) {
      InFlight& step = in_flight_.front();
      watchdog_->beat(fmt::format("step {}", done_ + 1));
      const StepResult result = step.pending.result();
      if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
        progress.finish();
        fail(Exit::non_finite, "step {}: the loss is {} and the gradient norm {}{}. Lower optim.learning_rate, or look at the rows of this step "
             "(epoch {}, step {} of it); the last checkpoint is untouched", done_ + 1, result.loss, result.grad_norm, std::isfinite(result.grad_norm) ? "" : "; the update was not made", loader_->position_of(done_).epoch + 1,
             loader_->position_of(done_).step + 1);
      }
      StepMetrics m{done_ + 1, total_steps_, result.loss, result.grad_norm, step.learning_rate, step.tokens, step.trained_tokens, step.begin->seconds_until(*step.end), largest(world_, peak_bytes(*device_->backend))};
      record([&] {
        metrics_->step(m);
        progress.step(m);
        if (!std::exchange(reported_, true) && !device_->backend->report().empty()) progress.note(device_->backend->report());
      });
    }
  }

  // Between two steps: whether a stop was asked for, or the records cannot be written. Then what was done is saved.
  StopReason stop_here(Progress& progress) {
    const StopReason stop = agreed_stop(world_);
    if (stop == StopReason::none && !unrecorded_) return stop;
    settle(0, progress);
    progress.finish();
    if (saved_ != done_) save();
    if (unrecorded_) {
      fail(Exit::io, "{}. The run was saved after step {}, without what could not be written: start the same command again to go on", unrecorded_->what(), done_);
    }
    return stop;
  }

  Outcome loop() {
    Progress progress(recipe_.log.every_steps);
    const auto due = [](int64_t step, int64_t every_steps) { return every_steps > 0 && step % every_steps == 0; };
    if (done_ == 0 || due(done_, recipe_.eval.every_steps)) validate(progress);  // not the first one: an earlier run may have been stopped in it
    note_stops();
    if (timed_) timed_->start_over();
    const auto loop_begin = std::chrono::steady_clock::now();
    const int64_t first_step = done_ + 1;
    while (done_ < total_steps_) {
      if (const StopReason stop = stop_here(progress); stop != StopReason::none) return {stop, done_};
      launch();
      const bool validates = due(launched(), recipe_.eval.every_steps), saves = due(launched(), recipe_.checkpoint.every_steps);
      // The device works on this step while the host prepares the next one, unless somebody waits for it.
      settle(!device_->backend->enqueues() || validates || saves || launched() == total_steps_ ? 0 : 1, progress);
      if (validates) validate(progress);
      if (saves) save();
    }
    progress.finish();
    if (timed_ && done_ >= first_step) {
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - loop_begin).count();
      log::info("where rank 0's time went, steps {} to {}:\n{}", first_step, done_, print_profile(timed_->times(), seconds));
    }
    validate(progress);
    const StopReason stop = stop_here(progress);
    return {validated_ == done_ ? StopReason::none : stop, done_};
  }

  fs::path answers_file() const { return run_ / fmt::format("answers-step-{}.jsonl", done_); }

  // output.dir/answers-step-N.jsonl, and the first of them to read. False where it was given up.
  bool answer_prompts(Progress& progress) {
    const std::vector<std::string> rows =
        sample_answers(*replica_, *engine_->settings().answers, data_.prompts, *tokenizer_, stop_ids(chat_template(recipe_), *tokenizer_, model_->config().eos), asked_to_stop);
    if (asked_to_stop(world_)) return false;
    record([&] {
      std::string text;
      for (const std::string& row : rows) text += row + "\n";
      write_text(answers_file(), text);
      const auto first = nlohmann::json::parse(rows.front())["messages"];
      progress.note(fmt::format("step {}: {} prompts answered in {}; the first: {}", done_, rows.size(), answers_file().string(), first.back()["content"].dump()));
    });
    return true;
  }

  static double mib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

  Exit stopped(const Outcome& outcome) {
    log::info("stopped after step {} of {}; {} is saved. Start the same command again to go on.", outcome.steps, total_steps_,
              (run_ / fmt::format("step-{}", outcome.steps)).string());
    return outcome.stop == StopReason::interrupted ? Exit::interrupted : Exit::preempted;
  }

  // The exported adapter, read back into the engine, gives the log-probabilities that the trained one gives.
  void check_exported(const fs::path& adapter) {
    // Of validation where there is any: scratch is planned for evaluating that.
    Batch batch;
    if (data_.validation) {
      std::vector<int64_t> rows(static_cast<size_t>(std::min(data_.validation->rows(), recipe_.train.micro_batch_size * mesh_.shape.dp())));
      std::iota(rows.begin(), rows.end(), 0);
      batch = batch_of_rows(*data_.validation, rows, recipe_.train.micro_batch_size, mesh_.position.dp(), mesh_.shape.dp());
    } else {
      batch = loader_->load({0, 0});
    }
    const auto logprobs = [&] {
      std::vector<float> all;
      engine_->evaluate(batch, [&](const MicroBatch&, std::span<const float> some) { all.insert(all.end(), some.begin(), some.end()); });
      return all;
    };
    const std::vector<float> trained = logprobs();
    together(world_, [&] { load_adapter(adapter, model_->config(), *replica_->adapter); });
    const std::vector<float> exported = logprobs();
    together(world_, [&] {
      double difference = 0, size = 0;
      for (size_t i = 0; i < trained.size(); ++i) {
        difference += (static_cast<double>(exported[i]) - trained[i]) * (static_cast<double>(exported[i]) - trained[i]);
        size += static_cast<double>(trained[i]) * trained[i];
      }
      const double off = std::sqrt(difference / std::max(size, 1e-30));
      if (off <= (recipe_.output.adapter_dtype == Precision::fp32 ? 0 : kAdapterRounded)) return;
      fail(Exit::corruption, "{}: read back, the adapter's log-probabilities are off by {:.1e} from those of the one that was trained; the checkpoint {} is untouched: try drover export {} --adapter DIR",
           adapter.string(), off, (run_ / fmt::format("step-{}", done_)).string(), run_.string());
    });
  }

  void finish() {
    watchdog_->beat("exporting the adapter");
    if (saved_ != done_) save();
    const fs::path adapter = run_ / "adapter";
    together(world_, [&] {
      if (world_.rank() != 0) return;
      const Checkpoint checkpoint = Checkpoint::open(run_ / fmt::format("step-{}", done_));
      export_adapter(checkpoint, dtype_of(recipe_.output.adapter_dtype), adapter);
    });
    check_exported(adapter);
    reached_bytes_ = largest(world_, peak_process_bytes());
    const ArenaBytes peak = engine_->peak();
    log::info("arenas of rank 0: {} bytes planned, {} bytes reached", planned_.total(), peak.total());
    log::info("a process: {:.0f} MiB predicted, {:.0f} MiB reached", mib(predicted_bytes_), mib(reached_bytes_));
    log::info("done. The adapter is in {}\n"
              "  try it:   {} generate --model {} --adapter {} --prompt \"…\" --greedy\n"
              "  merge it: {} export {} --merged {}",
              adapter.string(), program_name(), recipe_.model.path, adapter.string(), program_name(), run_.string(), (run_ / "merged").string());
  }

  const ReadRecipe& read_;
  const Recipe& recipe_;
  const Mesh& mesh_;  // the host's
  Communicator& world_;
  fs::path run_;
  const OpenDevice& open_device_;
  std::optional<Watchdog> watchdog_;
  std::optional<RunLock> lock_;
  std::optional<ModelDirectory> model_;
  std::optional<Tokenizer> tokenizer_;
  AdapterConfig adapter_config_;
  AdapterLayout layout_;
  std::string fingerprint_;
  PreparedData data_;
  ArenaBytes planned_;
  std::optional<Device> device_;
  std::shared_ptr<TimedBackend> timed_;  // with log.profile, around the device's
  std::unique_ptr<Replica> replica_;
  std::optional<Engine> engine_;
  std::optional<Loader> loader_;
  std::optional<MetricsFile> metrics_;
  std::map<std::string, std::string> identity_;
  struct InFlight {
    PendingStep pending;
    std::unique_ptr<Moment> begin, end;
    double learning_rate = 0;
    int64_t tokens = 0, trained_tokens = 0;
  };
  std::deque<InFlight> in_flight_;  // steps after done_ that are enqueued
  bool reported_ = false;
  std::optional<Error> unrecorded_;  // why metrics or answers could not be written
  int64_t total_steps_ = 0, done_ = 0, saved_ = -1, validated_ = -1;
  int64_t predicted_bytes_ = 0, reached_bytes_ = 0;  // of the largest process
};

}  // namespace

Exit train(const ReadRecipe& recipe, const Mesh& mesh, const OpenDevice& open_device) {
  Training training(recipe, mesh, open_device);
  return training.run();
}

}  // namespace drover
