// What a run costs, and what a GPU-hour of a machine does.
//   rented:   gpu_hour = price / utilisation
//   owned:    gpu_hour = (price / (life·utilisation) + hosting / utilisation + power) / gpus
// with the life and the hosting of an hour in hours (365.25 days a year, twelve equal months), and power = kW·price of
// a kWh, which only hours of work take.
//   run:      cost = GPU-hours·gpu_hour,   GPU-hours = ranks·seconds / 3600
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "launch/planning/prices.h"

namespace drover {

inline constexpr double kHoursAYear = 365.25 * 24, kHoursAMonth = kHoursAYear / 12;

double gpu_hour_price(const Prices& prices);  // of an hour in which the GPU works

struct RunEstimate {
  double run_seconds = 0;
  int ranks = 0;                           // a GPU each
  int64_t trained_tokens = 0, tokens = 0;  // of the whole run; trained ones have a loss
};

struct RunCost {
  double gpu_hours = 0, gpu_hour_price = 0, total = 0;
  double million_trained_tokens = 0, million_tokens = 0;
};
RunCost cost_of(const RunEstimate& run, const Prices& prices);

// A line for people; {"currency", "gpu_hours", "gpu_hour_price", "cost", "cost_a_million_trained_tokens",
// "cost_a_million_tokens"}.
std::string print_cost(const RunEstimate& run, const Prices& prices);
nlohmann::ordered_json cost_json(const RunEstimate& run, const Prices& prices);

// An amount as people read it: two digits behind the point from 1 on, three that count below, 12 300 000 in groups.
std::string money(double amount);

}  // namespace drover
