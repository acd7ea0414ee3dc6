// How long a run takes: its stages' real steps on Count, with real micro-batches where the data are there, at the rates
// of a machine, on one clock.
#pragma once
#include <functional>

#include "trainer/engine/engine.h"
#include "trainer/planning/timeline.h"

namespace drover {

// What the run will do, as far as it is known before it starts.
struct PlannedWork {
  std::function<Batch(int dp_rank, int64_t step)> batch;  // of a step, from 0
  std::vector<int64_t> sampled;                           // steps that stand for all
  int64_t steps = 0, steps_per_epoch = 0;
  std::vector<Batch> validation;  // this many evaluations of such batches make a validation, on one dp rank
  double validation_batches = 0;  // of a validation, for each dp rank
  int64_t validations = 0;        // in the run
  int64_t file_bytes = 0;         // of the model's weights, as one replica reads them
};

// At which rates a plan is timed.
struct PlannedMachine {
  Rates rates;
  bool calibrated = false;      // measured, on the machine that runs
  std::string name = {};        // of the rates and where they are from, for people
  double outside_per_call = 0;  // as Calibration
  double peak = 0;              // FLOP/s of a rank that MFU is a share of; 0: unknown
  double read = 0;              // bytes/s from a node's disk; 0: unknown
};

struct TimePlan {
  double step_seconds = 0, tokens_per_second = 0;  // tokens of all ranks, without padding
  double mfu = 0;                                  // of `peak` FLOP/s a rank; 0: unknown
  double bubble = 0;                               // share of the pipeline's time in which a stage waits
  double exposed_seconds = 0;                      // of a step: sums and gathers that nothing hides
  double first_step_seconds = 0;                   // until the weights are read; 0: unknown
  double epoch_seconds = 0;                        // 0: the data are not known
  double run_seconds = 0;  // with validations, without checkpoints, answers and export; 0: it is not known how many
                           // steps there are
  int64_t steps = 0;
  int64_t tokens_per_step = 0, trained_tokens_per_step = 0;
  std::map<std::string_view, double> ops;  // seconds of a step by op, of the stage that computes longest
};

TimePlan plan_time(const EngineSettings& settings, const MeshShape& shape, const PlannedWork& work,
                   const PlannedMachine& machine);

// FLOPs of a step's model: 4 for each frozen weight and token, 6 for each adapter's, and attention's, forward and
// backward; what is computed twice counts once. The head's are of trained tokens.
double model_flops(const ModelConfig& model, const AdapterLayout& adapter, const Batch& batch);

}  // namespace drover
