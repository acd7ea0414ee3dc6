// The steps of a run: enqueued ahead of the device, written down as they end, with validation and checkpoints between
// them, until all are done or the run is asked to stop.
#pragma once
#include <deque>

#include "data/loader.h"
#include "kernels/base/watchdog.h"
#include "kernels/comm/observed.h"
#include "kernels/timed/op_timer.h"
#include "trainer/engine/engine.h"
#include "trainer/run/plan_check.h"
#include "trainer/run/run_directory.h"
#include "trainer/run/run_plan.h"
#include "trainer/run/stop_signal.h"
#include "trainer/run/validation.h"

namespace drover {

class TrainingLoop {
 public:
  // All are kept by reference.
  struct Parts {
    const Recipe& recipe;
    Communicator& world;  // of the host
    Engine& engine;
    const Loader& loader;
    Validator& validation;
    RunDirectory& directory;
    Watchdog& watchdog;
    const RunPlan& plan;
    OpTimer* timer = nullptr;  // of the engine's backend, with log.profile
    MessageView& messages;     // of the engine's mesh, with log.trace
    std::function<void(int64_t step)> save;
  };
  // `done`: steps that an earlier run has done; `saved`: the step of its last checkpoint in the directory, or -1.
  TrainingLoop(const Parts& parts, int64_t total_steps, int64_t done, int64_t saved);
  TrainingLoop(const TrainingLoop&) = delete;
  TrainingLoop& operator=(const TrainingLoop&) = delete;

  // Collective. Why the run was stopped, after a save; none where all its steps are done and validated, or
  // eval.stop_after ended it.
  StopReason run();
  int64_t done() const { return done_; }
  double tokens_per_second() const { return check_.reached(); }  // of the median step of this run; 0: there is none
  void save_last();  // collective; a checkpoint after the last step that was done, unless there is one

 private:
  struct InFlight {
    PendingStep pending;
    std::unique_ptr<Moment> begin, end;
    double learning_rate = 0;
    int64_t tokens = 0, trained_tokens = 0;
  };
  Backend& backend() { return p_.engine.replica().backend(); }
  const LearningRate& learning_rate() const { return p_.engine.settings().optimizer.learning_rate; }
  int64_t enqueued() const { return done_ + static_cast<int64_t>(in_flight_.size()); }
  void enqueue();
  void finish_steps(size_t kept);
  void write_down(const InFlight& step, const StepResult& result);
  void save();
  StopReason stop_here();
  bool stalls() const;  // eval.stop_after validations have not improved on the best

  Parts p_;
  Progress progress_;
  PlanCheck check_;
  std::deque<InFlight> in_flight_;  // steps after done_ that are enqueued
  bool reported_ = false;           // what the device said of itself
  int64_t total_steps_ = 0, done_ = 0, saved_ = -1;
};

}  // namespace drover
