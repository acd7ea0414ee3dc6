#include "trainer/run/run_directory.h"

#include <fmt/ranges.h>

#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "trainer/run/run_identity.h"

namespace drover {

RunDirectory::RunDirectory(const fs::path& path, Communicator& world) : path_(path), world_(world) {
  together(world_, [&] {
    if (world_.rank() != 0) return;
    make_directories(path_);
    lock_.emplace(path_);
    clean_up(path_);
  });
}

fs::path RunDirectory::checkpoint(int64_t step) const { return path_ / fmt::format("step-{}", step); }
fs::path RunDirectory::answers(int64_t step) const { return path_ / fmt::format("answers-step-{}.jsonl", step); }

std::optional<Checkpoint> RunDirectory::to_resume(const std::string& resume,
                                                  const std::map<std::string, std::string>& identity) {
  if (resume == "never") return std::nullopt;
  std::optional<Checkpoint> checkpoint;
  if (resume == "auto") {
    checkpoint = Checkpoint::latest(path_, [](const std::string& text) { log::warn("{}", text); });
  } else {
    checkpoint = Checkpoint::open(resume);
  }
  if (checkpoint) check_same_run(*checkpoint, identity, path_);
  return checkpoint;
}

void RunDirectory::accept(const ReadRecipe& recipe, int64_t step, int64_t saved, int64_t total_steps,
                          const std::string& plan) {
  together(world_, [&] {
    if (world_.rank() != 0) return;
    const auto [aside, to] = set_aside(path_, saved);
    if (!aside.empty()) {
      log::warn("{} of an earlier run {} now in {}", fmt::join(aside, ", "), aside.size() == 1 ? "is" : "are",
                to.string());
    }
    write_text(path_ / "recipe.yaml", resolved_recipe(with_absolute_paths(recipe)));
    write_text(path_ / kFactsFile, Json{{"total_steps", total_steps}}.dump() + "\n");
    plan_ = plan;
    std::error_code none;
    if (!plan_.empty() && !fs::exists(plan_file(), none) && !fs::exists(reached(), none))
      write_text(plan_file(), plan_);
    metrics_.emplace(path_ / "metrics.jsonl", step);
    if (recipe.recipe.log.tensorboard) metrics_->add_events(path_ / "tensorboard");
  });
}

void RunDirectory::replace_plan() {
  together(world_, [&] {
    if (world_.rank() != 0) return;
    std::error_code none;
    fs::remove(reached(), none);
    fs::remove(plan_file(), none);
    if (!plan_.empty()) write_text(plan_file(), plan_);
  });
}

void RunDirectory::save(const CheckpointState& state, const Trainables& trainables, Backend& backend, const Mesh& mesh,
                        const CheckpointSection& settings) {
  save_checkpoint(path_, state, trainables, backend, mesh);
  together(world_, [&] {
    if (world_.rank() == 0) prune_checkpoints(path_, settings.keep, settings.keep_best ? state.best.step : -1);
  });
}

void RunDirectory::record(const std::function<void(MetricsFile&)>& write) {
  if (unrecorded_) return;
  try {
    together(world_, [&] {
      if (world_.rank() == 0) write(*metrics_);
    });
  } catch (const Error& error) {
    if (error.fault() != Fault::io) throw;
    unrecorded_ = error;
  }
}

}  // namespace drover
