// The step on a replica: micro-batches pass forward and back as the pipeline's schedule says, and the optimizer
// updates. The same class runs for real and on Count: the arenas' sizes of the one come from a dry run of the other
// (see plan.h).
#pragma once
#include <algorithm>
#include <functional>
#include <memory>
#include <optional>

#include "data/batch.h"
#include "optim/optimizer.h"
#include "trainer/engine/replica.h"
#include "trainer/engine/work_observer.h"

namespace drover {

// Of answering prompts between two steps, in scratch.
struct AnswerCapacity {
  int64_t sequences = 0;  // prompts answered at once
  int64_t tokens = 0;     // of a prompt with its answer
};

// The most that the passes of a run hold, which its arenas are planned for.
struct Capacity {
  MicroBatchSize micro_batch;                // of a step
  std::optional<MicroBatchSize> evaluation;  // of an evaluation; nothing: as of a step
  int64_t local_micro_batches = 1;           // of a step, per rank
  std::optional<AnswerCapacity> answers;     // where there are eval.prompts
  int64_t most_tokens() const {
    return evaluation ? std::max(micro_batch.tokens, evaluation->tokens) : micro_batch.tokens;
  }
};

struct EngineSettings : ReplicaSettings {
  Capacity capacity;
  BackendTraits traits;            // of the backend that will run, for plans
  bool overlaps_sums = false;      // as the tp communicator of the run does, for plans
  int64_t least_part_rows = 1024;  // a micro-batch is not divided into parts of fewer rows, too few to keep a GPU busy
  OptimizerSettings optimizer;
  bool deterministic = false;
  bool recompute = false;  // memory.activation_checkpointing: full
  float dropout = 0;
  uint64_t seed = 42;
};

// Whose computing takes longer than the copy of a layer's weights does: so many tokens, and no fewer, share it.
inline constexpr int64_t kTokensTogether = 16384;

// Of the lists that the pipeline's stages run for so many micro-batches, and that plans validate and print; of stage 0.
// Where weights are streamed and there is one stage, micro-batches with kTokensTogether pass the layers together; in
// training if only the layers' inputs are kept, and gradients are not kept apart (deterministic).
ScheduleShape schedule_shape(const EngineSettings& settings, const MeshShape& mesh, int64_t micro_batches, bool train);

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
  // `saved_bytes`: of what the micro-batches in flight keep.
  Engine(const EngineSettings& settings, Replica& replica, int64_t saved_bytes);
  ~Engine();

  // Steps count from 1. Where a gradient norm is not finite, nothing is updated by this step and by all later ones.
  PendingStep enqueue_step(const Batch& batch, int64_t step);
  StepResult train_step(const Batch& batch, int64_t step) { return enqueue_step(batch, step).result(); }
  // The parts of train_step, for tests and tools: gradients of a batch (summed over the mesh), then the update.
  double accumulate_gradients(const Batch& batch, int64_t step);
  double apply_gradients(int64_t step);

  // Σ w·nll over the global batch, no gradients. `per_micro_batch`, when given, gets every local micro-batch's
  // log-probabilities of its trained tokens in order (on the ranks of the last stage).
  using LogprobSink = std::function<void(const MicroBatch&, std::span<const float> logprobs)>;
  double evaluate(const Batch& batch, const LogprobSink& per_micro_batch = {});

  // Called before every pipeline action and before the update, so that a watchdog sees progress within a step.
  void on_progress(std::function<void()> called) { progress_ = std::move(called); }
  void observe(WorkObserver* observer) { observer_ = observer; }  // gets all work from now on; nullptr: none

  Replica& replica() { return replica_; }
  const EngineSettings& settings() const { return settings_; }
  ArenaBytes peak() const;  // the replica's, and what is saved
  Arena& idle_memory();     // what a micro-batch in flight would keep, free between two steps

 private:
  struct Slot;
  struct Part;
  // The residual stream of a micro-batch at the stage's edge, which may still be on its way out when the next
  // micro-batch takes over the slot.
  struct Stream {
    Tensor x;                           // (most tokens, D)
    std::shared_ptr<Transfer> sending;  // reads x until it was waited for
    void wait() {
      if (sending) sending->wait();
      sending.reset();
    }
  };
  // Once through a schedule, with a global batch.
  struct Pass {
    const Batch& batch;
    Tensor losses;            // (micro-batches of the global batch) f64: log-likelihoods, added
    bool train = false;       // with backward
    uint64_t step = 0;        // of training: keys dropout
    const LogprobSink& sink;  // may be empty
  };
  void run(const Pass& pass);
  template <typename Do>
  void observed(const Work& work, Do&& run);
  void compute(std::span<const Action> actions, const Pass& pass);  // of one kind
  Tensor closed_up(Tensor x);
  void spread(Tensor x);
  void exchange(std::span<const Action> actions, const Pass& pass);
  void open(int micro_batch, const Pass& pass);
  bool saves(const Pass& pass) const { return pass.train && mesh_.position.pp() >= first_trained_stage_; }
  Stream& stream_of(int micro_batch) { return streams_[static_cast<size_t>(micro_batch) % streams_.size()]; }
  Slot& slot_of(int micro_batch) { return *slots_[static_cast<size_t>(micro_batch) % slots_.size()]; }
  using Group = std::span<Slot* const>;  // micro-batches that pass the blocks together
  void forward(Group group, const Pass& pass);
  void score(Slot& slot, const Pass& pass);
  using Walk = Task (Stage::*)(std::vector<Stage::Passage> group) const;
  void run_parts(Group group, const Pass& pass, Walk walk);
  Context context_of(const Slot& slot, const Part& part, Arena& scratch, const Pass& pass);
  std::unique_ptr<Reading> enqueue_gradients(const Batch& batch, int64_t step);  // → a loss of each micro-batch
  PendingNorm enqueue_update(int64_t step);
  std::unique_ptr<Reading> read_losses(Tensor losses);

  EngineSettings settings_;
  Replica& replica_;
  Backend& backend_;
  Mesh& mesh_;
  const Stage& stage_;
  Arena& scratch_;
  std::optional<Arena> stream_arena_;  // counted as saved
  std::optional<Optimizer> optimizer_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Stream> streams_;
  std::function<void()> progress_ = [] {};
  WorkObserver* observer_ = nullptr;
  int first_trained_stage_ = 0;
};

}  // namespace drover
