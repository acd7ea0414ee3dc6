// What a rank needs to train: device, arenas, its stage of the model, its share of the adapter; and the step on them.
// The same class runs for real and on Count: the arenas' sizes of the one come from a dry run of the other (see plan.h).
#pragma once
#include <functional>
#include <memory>
#include <optional>

#include "data/batch.h"
#include "kernels/comm/mesh.h"
#include "model/stage.h"
#include "optim/optimizer.h"
#include "trainer/schedule.h"

namespace drover {

class Checkpoint;

struct EngineSettings {
  ModelConfig model;
  AdapterLayout adapter;               // empty vector: no adapter (evaluation of the base model)
  std::vector<LayerRange> partition;   // layers of every pipeline stage
  DType dtype = DType::f32;
  BackendTraits traits;                // of the backend that will run, for plans
  bool overlaps_sums = false;          // as the tp communicator of the run does, for plans
  int64_t max_positions = 0;           // longest document
  int64_t micro_batch_tokens = 0;      // the most tokens of one micro-batch
  int64_t micro_batch_trained = 0;     // the most trained tokens of one micro-batch; 0: all of them
  int64_t evaluation_tokens = 0;       // the same of evaluation; 0: as in training
  int64_t evaluation_trained = 0;
  int64_t local_micro_batches = 1;     // the most per rank and step
  int64_t least_part_rows = 1024;      // a micro-batch is not divided into parts of fewer rows: they would not keep a GPU busy
  int64_t answer_sequences = 0;        // eval.prompts: prompts answered at once in scratch; 0: none
  int64_t answer_tokens = 0;           // of a prompt with its answer
  bool train = true;                   // false: evaluation only; no gradients, no optimizer
  OptimizerSettings optimizer;
  bool deterministic = false;
  bool recompute = false;              // memory.activation_checkpointing: full
  float dropout = 0;
  uint64_t seed = 42;
};

// Of the lists that the pipeline's stages run for so many micro-batches, and that plans validate and print; of stage 0.
ScheduleShape schedule_shape(const EngineSettings& settings, const MeshShape& mesh, int64_t micro_batches, bool train);

// Bytes of every arena.
struct ArenaBytes {
  int64_t weights = 0, adapter = 0, optimizer = 0, saved = 0, scratch = 0;  // saved: the micro-batches in flight, and their streams between the stages
  int64_t total() const { return weights + adapter + optimizer + saved + scratch; }
  bool operator==(const ArenaBytes&) const = default;
};

struct StepResult {
  double loss = 0;       // Σ w·nll / Σ w over the global batch
  double grad_norm = 0;  // before clipping
};

// A step that has been enqueued. Its numbers are there when the device has done it.
class PendingStep {
 public:
  PendingStep(std::unique_ptr<Reading> losses, PendingNorm norm) : losses_(std::move(losses)), norm_(std::move(norm)) {}
  StepResult result();  // waits

 private:
  std::unique_ptr<Reading> losses_;
  PendingNorm norm_;
};

class Engine {
 public:
  Engine(const EngineSettings& settings, Backend& backend, Mesh& mesh, WeightSource& source, const ArenaBytes& capacity);
  ~Engine();

  // Steps count from 1. Where a gradient norm is not finite, nothing is updated by this step and by all later ones.
  PendingStep enqueue_step(const Batch& batch, int64_t step);
  StepResult train_step(const Batch& batch, int64_t step) { return enqueue_step(batch, step).result(); }
  // The parts of train_step, for tests and tools: gradients of a batch (summed over the mesh), then the update.
  double accumulate_gradients(const Batch& batch, int64_t step);
  double apply_gradients(int64_t step);

  // Σ w·nll over the global batch, no gradients. `per_micro_batch`, when given, gets every local micro-batch's log-probabilities of its
  // trained tokens in order (on the ranks of the last stage).
  using LogprobSink = std::function<void(const MicroBatch&, std::span<const float> logprobs)>;
  double evaluate(const Batch& batch, const LogprobSink& per_micro_batch = {});

  // Called before every pipeline action and before the update, so that a watchdog sees progress within a step.
  void on_progress(std::function<void()> called) { progress_ = std::move(called); }

  void load(const Checkpoint& checkpoint);  // into what trains and the copies that compute; 65 for other tensors

  AdapterSet* adapter() { return adapter_.get(); }
  Trainables* trainables() { return trainables_ ? &*trainables_ : nullptr; }  // of the adapter
  const Stage& stage() const { return *stage_; }
  Backend& backend() { return backend_; }
  Mesh& mesh() { return mesh_; }
  Arena& scratch() { return scratch_; }
  const EngineSettings& settings() const { return settings_; }
  ArenaBytes peak() const;

 private:
  struct Slot;
  struct Part;
  // The residual stream of a micro-batch at the stage's edge, which may still be on its way out when the next micro-batch takes over the slot.
  struct Stream {
    Tensor x;                           // (most tokens, D)
    std::shared_ptr<Transfer> sending;  // reads x until it was waited for
    void wait() {
      if (sending) sending->wait();
      sending.reset();
    }
  };
  void run(const Batch& batch, bool train, uint64_t step, Tensor losses, const LogprobSink& sink);
  void compute(const Action& action, const Batch& batch, bool train, uint64_t step, Tensor losses, const LogprobSink& sink);
  Tensor closed_up(Tensor x);
  void spread(Tensor x);
  void exchange(std::span<const Action> actions, const Batch& batch, bool train);
  void open(int micro_batch, const Batch& batch, bool train);
  bool saves(bool train) const { return train && mesh_.position.pp() >= first_trained_stage_; }
  Stream& stream_of(int micro_batch) { return streams_[static_cast<size_t>(micro_batch) % streams_.size()]; }
  Slot& slot_of(int micro_batch) { return *slots_[static_cast<size_t>(micro_batch) % slots_.size()]; }
  void forward(Slot& slot, bool train, uint64_t step, Tensor loss, const LogprobSink& sink);
  using Walk = Task (Stage::*)(Context&, Tensor, const Stage::Saved&) const;  // forward or backward
  void run_parts(Slot& slot, bool train, uint64_t step, Walk walk);
  Context context_of(const Slot& slot, const Part& part, Arena& scratch, bool train, uint64_t step);
  std::unique_ptr<Reading> enqueue_gradients(const Batch& batch, int64_t step);  // → a loss of each micro-batch
  PendingNorm enqueue_update(int64_t step);
  std::unique_ptr<Reading> read_losses(Tensor losses);

  EngineSettings settings_;
  Backend& backend_;
  Mesh& mesh_;
  Arena weights_, adapter_arena_, optimizer_arena_, scratch_;
  std::optional<Arena> stream_arena_;  // counted as saved
  std::optional<Trainables> trainables_;
  std::unique_ptr<AdapterSet> adapter_;
  std::unique_ptr<Stage> stage_;
  std::optional<Optimizer> optimizer_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Stream> streams_;
  std::function<void()> progress_ = [] {};
  int first_trained_stage_ = 0;
};

}  // namespace drover
