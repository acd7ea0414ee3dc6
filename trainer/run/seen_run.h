// A run as its directory shows it to another process, while it works or after: its metrics, its newest checkpoint, and
// who works in it. Nothing is locked and nothing is written.
#pragma once
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/file.h"

namespace drover {

inline constexpr double kUnseen = std::numeric_limits<double>::quiet_NaN();  // null (NaN, Inf), or not there

struct SeenStep {
  int64_t step = 0;
  double loss = kUnseen, grad_norm = kUnseen, learning_rate = kUnseen, tokens_per_second = kUnseen,
         step_seconds = kUnseen;
  int64_t peak_bytes = 0;  // 0: not there
};
struct SeenValidation {
  int64_t step = 0;
  double loss = kUnseen;
};

enum class RunLife : uint8_t {
  absent,     // the directory is not there yet
  awaited,    // it is, and no run has begun in it: it is empty, or holds its prepared data only
  working,    // a process of this machine
  elsewhere,  // a process of another machine, as the lock says; whether it is alive shows in its metrics only
  ended,      // nobody has the directory
  lost,       // the process that the lock names is gone
};

struct SeenRun {
  RunLife life = RunLife::absent;
  std::string host;  // of the lock, as is pid; empty where there is none
  int64_t pid = 0;
  int64_t total_steps = 0;              // 0: not known
  std::optional<double> quiet_seconds;  // since metrics.jsonl was written to
  std::vector<SeenStep> steps;
  std::vector<SeenValidation> validations;
  std::optional<int64_t> checkpoint;  // the newest, by its name

  std::optional<double> seconds_left() const;  // by the last 20 steps; where the total is known
};

// Reads a run's directory again and again; of metrics.jsonl only what is new. A file that became shorter, or another
// one, was cut back by a resume, and is read anew.
class RunReader {
 public:
  explicit RunReader(fs::path run) : run_(std::move(run)) {}
  // missing_input where there is something else than a run: it holds none of recipe.yaml, metrics.jsonl and lock, and
  // is no directory that a run may begin in. After an error the next look reads on.
  const SeenRun& look();

 private:
  void read_lock();
  void read_metrics();
  void take(const std::string& line);
  fs::path run_;
  SeenRun seen_;
  uint64_t inode_ = 0;
  int64_t read_bytes_ = 0;
  std::string rest_;  // the beginning of a line
};

}  // namespace drover
