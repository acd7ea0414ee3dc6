#include "trainer/run/plan_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace drover {

std::optional<std::string> PlanCheck::step(int64_t tokens, double seconds) {
  if (std::exchange(first_, false)) return {};  // which touches memory for the first time
  speeds_.push_back(static_cast<double>(tokens) / seconds);
  if (speeds_.size() != kSteps || planned_ <= 0) return {};
  const double apart = reached() / planned_ - 1;
  if (std::abs(apart) <= kFar) return {};
  return fmt::format(
      "the run computes {:.0f} tokens/s, and {:.0f} were planned ({:+.0f} %): {}", reached(), planned_, 100 * apart,
      apart < 0 ? "something else may use this machine, or it has changed since drover doctor --calibrate measured it"
                : "drover doctor --calibrate measures this machine anew");
}

double PlanCheck::reached() const {
  if (speeds_.empty()) return 0;
  std::vector<double> sorted = speeds_;
  std::ranges::nth_element(sorted, sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2));
  return sorted[sorted.size() / 2];
}

}  // namespace drover
