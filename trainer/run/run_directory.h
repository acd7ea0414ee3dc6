// A run's place on disk, output.dir: its lock, its checkpoints and its records. All of it is written by rank 0, but for
// the checkpoints, of which every rank writes its share.
#pragma once
#include <functional>
#include <optional>

#include "configs/recipe.h"
#include "kernels/base/error.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/metrics.h"
#include "trainer/run/run_lock.h"

namespace drover {

class RunDirectory {
 public:
  static constexpr const char* kFactsFile = "run.json";        // {"total_steps"}, for programs that look on
  static constexpr const char* kReachedFile = "reached.json";  // at the run's end: the memory that every rank reached

  // Collective. Takes the directory for this run; bad_recipe where another one has it.
  RunDirectory(const fs::path& path, Communicator& world);

  const fs::path& path() const { return path_; }
  fs::path adapter() const { return path_ / "adapter"; }
  fs::path checkpoint(int64_t step) const;
  fs::path answers(int64_t step) const;  // of eval.prompts
  fs::path reached() const { return path_ / kReachedFile; }

  // What this run continues from, as checkpoint.resume says; nothing: it starts anew. bad_recipe where that is another
  // run's.
  std::optional<Checkpoint> to_resume(const std::string& resume, const std::map<std::string, std::string>& identity);
  // Collective. The run is accepted, and the directory is its own from here on: checkpoints after `saved` are set
  // aside; the recipe and run.json are written; the metrics go on after `step`. `plan`: what plan.json will say; empty:
  // there will be none. It is written at once where no earlier run left a plan or what its ranks reached.
  void accept(const ReadRecipe& recipe, int64_t step, int64_t saved, int64_t total_steps, const std::string& plan = {});
  // Collective, before this run's first step. What an earlier run planned and reached, which belong together, makes
  // room for this run's plan; a run without a step keeps both.
  void replace_plan();
  // Of rank 0, once the run is accepted: the validation loss that an earlier run wrote of the step that this one
  // starts from.
  std::optional<double> loss_at_last_step() const { return metrics_->loss_at_last_step(); }

  // Collective. A checkpoint; all but the newest `keep` are removed, and with `keep_best` the best one stays too.
  void save(const CheckpointState& state, const Trainables& trainables, Backend& backend, const Mesh& mesh,
            const CheckpointSection& settings);

  // Collective. Rank 0 writes to the run's records. What cannot be written ends the run, but with a checkpoint: it is
  // kept for the loop, and nothing is recorded after it.
  void record(const std::function<void(MetricsFile&)>& write);
  const std::optional<Error>& unrecorded() const { return unrecorded_; }

 private:
  fs::path plan_file() const { return path_ / "plan.json"; }

  fs::path path_;
  Communicator& world_;
  std::string plan_;
  std::optional<RunLock> lock_;
  std::optional<MetricsFile> metrics_;
  std::optional<Error> unrecorded_;
};

}  // namespace drover
