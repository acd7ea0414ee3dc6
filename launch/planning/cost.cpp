#include "launch/planning/cost.h"

#include <cmath>

#include "kernels/base/error.h"

namespace drover {

double gpu_hour_price(const Prices& prices) {
  if (const auto* rented = std::get_if<RentedGpu>(&prices.machine)) return rented->price / rented->utilisation;
  const auto& box = std::get<OwnedBox>(prices.machine);
  const double bought = box.price / (box.life_years * kHoursAYear * box.utilisation);
  const double hosted = box.hosting_a_month.value_or(0) / (kHoursAMonth * box.utilisation);
  return (bought + hosted + box.watts / 1000 * box.kwh_price) / static_cast<double>(box.gpus);
}

RunCost cost_of(const RunEstimate& run, const Prices& prices) {
  require(run.run_seconds > 0 && run.ranks > 0, "a run takes time and ranks");
  require(run.trained_tokens > 0 && run.tokens >= run.trained_tokens, "a run trains some of its tokens");
  RunCost cost;
  cost.gpu_hours = run.run_seconds * run.ranks / 3600;
  cost.gpu_hour_price = gpu_hour_price(prices);
  cost.total = cost.gpu_hours * cost.gpu_hour_price;
  cost.million_trained_tokens = cost.total / (static_cast<double>(run.trained_tokens) / 1e6);
  cost.million_tokens = cost.total / (static_cast<double>(run.tokens) / 1e6);
  return cost;
}

std::string money(double amount) {
  if (amount != 0 && std::abs(amount) < 1) return fmt::format("{:.3g}", amount);
  std::string digits = fmt::format("{:.2f}", amount);
  const size_t first = digits.starts_with('-') ? 1 : 0;
  for (size_t at = digits.find('.'); at > first + 3;) {
    at -= 3;
    digits.insert(at, 1, ' ');
  }
  return digits;
}

std::string print_cost(const RunEstimate& run, const Prices& prices) {
  const RunCost c = cost_of(run, prices);
  return fmt::format(
      "cost: {:.1f} GPU-hours at {} {} = {} {}; {} {} a million trained tokens, {} {} a million tokens\n", c.gpu_hours,
      money(c.gpu_hour_price), prices.currency, money(c.total), prices.currency, money(c.million_trained_tokens),
      prices.currency, money(c.million_tokens), prices.currency);
}

nlohmann::ordered_json cost_json(const RunEstimate& run, const Prices& prices) {
  const RunCost c = cost_of(run, prices);
  return {{"currency", prices.currency},
          {"gpu_hours", c.gpu_hours},
          {"gpu_hour_price", c.gpu_hour_price},
          {"cost", c.total},
          {"cost_a_million_trained_tokens", c.million_trained_tokens},
          {"cost_a_million_tokens", c.million_tokens}};
}

}  // namespace drover
