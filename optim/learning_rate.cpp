#include "optim/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace drover {

double LearningRate::at(int64_t step) const {
  const auto ratio = [](int64_t part, int64_t whole) {
    return static_cast<double>(part) / static_cast<double>(std::max<int64_t>(1, whole));
  };
  if (step < warmup_steps) return peak * ratio(step, warmup_steps);
  const auto decayed = [&](double share) { return peak * (floor + (1 - floor) * std::max(0.0, share)); };
  switch (shape) {
    case LearningRateShape::constant: return peak;
    case LearningRateShape::linear: return decayed(ratio(total_steps - step, total_steps - warmup_steps));
    case LearningRateShape::cosine:
      return decayed(0.5 * (1 + std::cos(std::numbers::pi * ratio(step - warmup_steps, total_steps - warmup_steps))));
  }
  return peak;
}

bool LearningRate::moves() const {
  for (int64_t step = 0; step < total_steps; ++step) {
    if (at(step) > 0) return true;
  }
  return false;
}

int64_t warmup_steps_of(double ratio, int64_t total_steps) {
  return static_cast<int64_t>(std::ceil(ratio * static_cast<double>(total_steps)));
}

}  // namespace drover
