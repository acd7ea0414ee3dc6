// How long a run takes: its stages' real steps on Count, with real micro-batches where the data are there, at the rates
// of a machine, on one clock.
#pragma once
#include <functional>
#include <optional>

#include "trainer/engine/engine.h"
#include "trainer/planning/timeline.h"

namespace drover {

// What the run will do, as far as it is known before it starts.
struct PlannedWork {
  std::function<Batch(int dp_rank, int64_t step)> batch;  // of a step, from 0
  std::vector<int64_t> sampled;                           // steps that stand for all
  int64_t steps = 0, steps_per_epoch = 0;
  std::vector<Batch> validation;             // this many evaluations of such batches make a validation, on one dp rank
  double validation_batches = 0;             // of a validation, for each dp rank
  int64_t validations = 0;                   // in the run
  struct Answers {                           // to eval.prompts, of one dp rank, each time, at their longest
    int64_t prompts = 0, prompt_tokens = 0;  // so many, of so many tokens in the mean
    int64_t tokens = 0, at_once = 0;         // of an answer; answers
    int64_t times = 0;                       // in the run
  };
  std::optional<Answers> answers = {};
  int64_t checkpoints = 0, checkpoint_bytes = 0;  // written in the run; of one
  int64_t adapter_bytes = 0;                      // of the export at the end
  struct Compared {                               // documents over which the export is compared, of one dp rank
    std::vector<Batch> batches;                   // evaluated twice: as it was trained, and as it is read back
    std::vector<int64_t> served;                  // tokens of those that passes of generation score, one at a time
    int64_t pass_rows = 1;
  };
  std::optional<Compared> compared = {};
  std::vector<std::string> left_out = {};  // of the run: what is not known, and why
  int64_t file_bytes = 0;                  // of the model's weights, as one replica reads them
};

// At which rates a plan is timed.
struct PlannedMachine {
  Rates rates;
  bool calibrated = false;      // measured, on the machine that runs
  std::string name = {};        // of the rates and where they are from, for people
  double outside_per_call = 0;  // as Calibration
  double peak = 0;              // FLOP/s of a rank that MFU is a share of; 0: unknown
  double read = 0;              // bytes/s from a node's disk; 0: unknown
  double write = 0;             // bytes/s of checkpoints to it; 0: unknown
  std::string why_no_write = "how fast the disk writes was not measured (drover doctor --calibrate)";
};

struct TimePlan {
  double step_seconds = 0, tokens_per_second = 0;  // tokens of all ranks, without padding
  double mfu = 0;                                  // of `peak` FLOP/s a rank; 0: unknown
  double bubble = 0;                               // share of the pipeline's time in which a stage waits
  double exposed_seconds = 0;                      // of a step: sums and gathers that nothing hides
  double first_step_seconds = 0;                   // until the weights are read; 0: unknown
  double epoch_seconds = 0;                        // 0: the data are not known
  double run_seconds = 0;                          // with all that follows; 0: it is not known how many steps there are
  double validation_seconds = 0, answer_seconds = 0, checkpoint_seconds = 0, export_seconds = 0;  // of the run
  int64_t validations = 0, answer_rounds = 0, checkpoints = 0;                                    // in the run
  std::vector<std::string> left_out;  // of the run: what run_seconds is without, and why
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
