// metrics.jsonl (trainer/run/metrics.h) as numbers to draw. It is read as far as it can be: a half last line, lines
// that are no JSON and keys that nobody knows are passed over, and what is missing or null (NaN, Inf) of a step, or
// an amount below 0, is a hole.
#pragma once
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

namespace drover {

inline constexpr double kHole = std::numeric_limits<double>::quiet_NaN();

struct StepRow {
  int64_t step = 0;
  double loss = kHole, grad_norm = kHole, learning_rate = kHole;
  double tokens = kHole, trained_tokens = kHole, tokens_per_second = kHole, step_seconds = kHole, peak_bytes = kHole;
};

struct ValidationRow {
  int64_t step = 0;
  double loss = kHole, tokens = kHole;
};

// By step, ascending; of a step that stands twice the later line counts.
struct MetricsSeries {
  std::vector<StepRow> steps;
  std::vector<ValidationRow> validations;
  int64_t unread_lines = 0;  // that are no JSON object with a step from 0 on

  bool empty() const { return steps.empty() && validations.empty(); }
  int64_t last_step() const;                                 // 0 where there is none
  std::vector<double> column(double StepRow::*field) const;  // of every step
  std::vector<double> step_numbers() const;
};

MetricsSeries parse_metrics(std::string_view text);

}  // namespace drover
