// A run's directory as a reader finds it: what is there is read, and of what is not it is known why.
#pragma once
#include <map>
#include <optional>

#include "trainer/report/adapter_change.h"
#include "trainer/report/answers_record.h"
#include "trainer/report/length_record.h"
#include "trainer/report/metrics_series.h"
#include "trainer/report/plan_record.h"
#include "trainer/report/proof_record.h"
#include "trainer/report/recipe_record.h"
#include "trainer/report/trace_record.h"

namespace drover {

enum class RunState : uint8_t {
  running,     // a process holds its lock
  done,        // its adapter is of its end
  ended_early  // stopped or failed: there are checkpoints at best
};
const char* word_of(RunState state);

// The parts of a run that may be absent.
enum class Part : uint8_t { plan, reached, traces, lengths, answers, change, proof };

struct RunRecord {
  std::string name;  // the directory's own, or more of its path
  fs::path path;
  RunState state = RunState::ended_early;
  RecipeRecord recipe;
  MetricsSeries metrics;
  std::vector<int64_t> checkpoints;    // their steps, ascending
  std::vector<AnswersOfStep> answers;  // of the first and the last step that have some
  std::vector<TraceStep> traces;       // the last ones that can be read, ascending
  std::vector<int64_t> traced_steps;   // all, also those that are not read; ascending
  int64_t total_steps = 0;             // by run.json; 0: not known
  std::optional<PlanRecord> plan;
  std::vector<RankMemory> reached;  // by rank
  std::optional<LengthRecord> lengths;
  std::optional<AdapterChange> change;
  std::optional<ProofRecord> proof;
  std::map<Part, std::string> absent;  // why a part is not there; a sentence

  std::optional<double> planned_steps() const;  // total_steps, or else the recipe's train.max_steps
  bool validated_after(int64_t step) const;
  bool saved_after(int64_t step) const;  // by checkpoint.every_steps: older ones are removed
};

// Reads only. missing_input: the path is not there, or the run has not written a step yet; bad_data: it is no run.
// Any other part that cannot be read is absent with the reason.
RunRecord read_run(const fs::path& path, BaseNorms norms);

// Several runs; those whose directories have the same name are named by as much of their paths' ends as differs. usage
// where two paths are one directory.
std::vector<RunRecord> read_runs(const std::vector<std::string>& paths, BaseNorms norms);

}  // namespace drover
