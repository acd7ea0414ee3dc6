// Whether a run is as fast as it was planned to be.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace drover {

class PlanCheck {
 public:
  static constexpr double kFar = 0.2;  // of the planned speed: what is said
  static constexpr size_t kSteps = 5;  // after the first, whose median is compared

  explicit PlanCheck(double planned_tokens_per_second) : planned_(planned_tokens_per_second) {}

  // A step of this run. Once, when there are enough: how far the speed is from the plan, where that is far.
  std::optional<std::string> step(int64_t tokens, double seconds);
  double reached() const;  // tokens/s, the median of all steps but the first; 0 where there is none

 private:
  double planned_;
  bool first_ = true;
  std::vector<double> speeds_;
};

}  // namespace drover
