// metrics.jsonl, the same as event files, and the progress line.
#pragma once
#include <chrono>
#include <optional>

#include "kernels/base/append_file.h"
#include "trainer/run/event_file.h"

namespace drover {

struct StepMetrics {
  int64_t step = 0, total_steps = 0;
  double loss = 0, grad_norm = 0, learning_rate = 0;
  int64_t tokens = 0, trained_tokens = 0;
  double step_seconds = 0;
  int64_t peak_bytes = 0;
  double planned_step_seconds = 0;  // of the run's plan, where it is calibrated; else 0
};

// Rank 0 only. Opening it for a resumed run drops every line after `last_step`, and a half last line.
class MetricsFile {
 public:
  MetricsFile(const fs::path& file, int64_t last_step);
  std::optional<double> loss_at_last_step() const { return loss_at_last_step_; }  // of a validation that was kept
  void add_events(const fs::path& directory);  // from here on also as event files (log.tensorboard)
  void step(const StepMetrics& m);
  void validation(int64_t step, double loss, int64_t tokens);

 private:
  void line(const std::string& text);
  fs::path path_;
  int64_t last_step_ = 0;
  std::optional<double> loss_at_last_step_;
  std::optional<AppendFile> out_;  // from the first line on
  std::optional<EventFile> events_;
};

// The losses that stand in a metrics.jsonl of a step; none where it is not there or has none.
struct LossesOfStep {
  std::optional<double> training, validation;
};
LossesOfStep losses_of_step(const fs::path& file, int64_t step);

// One updating line on a terminal, a line per step elsewhere.
class Progress {
 public:
  explicit Progress(int64_t every_steps);
  void step(const StepMetrics& m);
  void note(const std::string& text);  // a line of its own
  void finish();

 private:
  bool terminal_ = false, open_ = false;
  int64_t every_ = 1, first_step_ = -1;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace drover
