// What a run does at every eval.every_steps: it answers eval.prompts, and takes the loss of the validation data.
#pragma once
#include "data/tokenizer.h"
#include "trainer/run/best_validation.h"
#include "trainer/run/run_directory.h"
#include "trainer/setup/inputs.h"

namespace drover {

class Validator {
 public:
  // All are kept by reference. `world`: of the host.
  Validator(const Recipe& recipe, const RunInputs& inputs, Engine& engine, Communicator& world,
            RunDirectory& directory);

  // Collective. Validates after `step`, unless that was done. False where it was given up because the run is asked to
  // stop; the run that continues from here makes up for it.
  bool run(int64_t step, Progress& progress);
  // Collective, once the directory is accepted: what the checkpoint knows of the best, and an earlier run may have
  // validated the step that this one starts from.
  void look_back(int64_t step, const BestValidation& best);
  const BestValidation& best() const { return best_; }

 private:
  bool answer_prompts(int64_t step, Progress& progress);
  bool evaluate(int64_t step, Progress& progress);
  std::optional<double> loss_of_earlier_run() const;  // collective

  const Recipe& recipe_;
  const RunInputs& inputs_;
  Engine& engine_;
  Communicator& world_;
  RunDirectory& directory_;
  BestValidation best_;
  int64_t last_ = -1;
};

}  // namespace drover
