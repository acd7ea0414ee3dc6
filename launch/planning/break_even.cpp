#include "launch/planning/break_even.h"

#include <chrono>
#include <cmath>
#include <cstdio>

#include "kernels/base/error.h"
#include "launch/planning/cost.h"

namespace drover {

namespace {

constexpr double kSecondsAMonth = kHoursAMonth * 3600, kDaysAMonth = kHoursAMonth / 24;

// What one box costs, apart from what it is asked for.
struct BoxCost {
  double price = 0, months_of_life = 1, fixed_a_month = 0, an_hour_of_work = 0, utilisation = 1;
};

BoxCost box_cost(const Prices& prices, int64_t gpus) {
  if (const auto* rented = std::get_if<RentedGpu>(&prices.machine)) {
    return {.fixed_a_month = rented->price * static_cast<double>(gpus) * kHoursAMonth,
            .utilisation = rented->utilisation};
  }
  const auto& box = std::get<OwnedBox>(prices.machine);
  require(box.gpus == gpus, "a box is planned with its own GPUs");
  return {.price = box.price,
          .months_of_life = box.life_years * 12,
          .fixed_a_month = box.hosting_a_month.value_or(0),
          .an_hour_of_work = box.watts / 1000 * box.kwh_price,
          .utilisation = box.utilisation};
}

double million_tokens(const ApiPrice& api, const Traffic& traffic) {
  const auto in = static_cast<double>(traffic.prompt_tokens), out = static_cast<double>(traffic.answer_tokens);
  return (in * api.input + out * api.output) / (in + out);
}

std::optional<double> least_traffic(const BoxCost& box, double tokens_per_second, double api_token) {
  const double energy_of_a_token = box.an_hour_of_work / (tokens_per_second * 3600);
  if (api_token <= energy_of_a_token) return {};
  const double least = (box.price / box.months_of_life + box.fixed_a_month) / (api_token - energy_of_a_token);
  if (least > tokens_per_second * box.utilisation * kSecondsAMonth) return {};
  return least;
}

}  // namespace

MachinesCost machines_cost(const Prices& prices, int64_t gpus, double tokens_per_second, const Traffic& traffic) {
  require(tokens_per_second > 0 && traffic.tokens_a_month > 0, "a box carries tokens, and some are asked for");
  const BoxCost box = box_cost(prices, gpus);
  MachinesCost cost;
  cost.tokens_a_month_of_a_box = tokens_per_second * box.utilisation * kSecondsAMonth;
  cost.boxes = static_cast<int64_t>(std::ceil(traffic.tokens_a_month / cost.tokens_a_month_of_a_box));
  const auto boxes = static_cast<double>(cost.boxes);
  cost.hours_of_work = traffic.tokens_a_month / (tokens_per_second * 3600);
  cost.bought = boxes * box.price;
  cost.running_a_month = boxes * box.fixed_a_month + cost.hours_of_work * box.an_hour_of_work;
  cost.a_month = cost.bought / box.months_of_life + cost.running_a_month;
  cost.million_tokens = cost.a_month / traffic.tokens_a_month * 1e6;
  return cost;
}

std::vector<BreakEven> break_even(const Prices& prices, int64_t gpus, double tokens_per_second,
                                  const Traffic& traffic) {
  const BoxCost box = box_cost(prices, gpus);
  const MachinesCost ours = machines_cost(prices, gpus, tokens_per_second, traffic);
  std::vector<BreakEven> results;
  for (const ApiPrice& api : prices.apis) {
    BreakEven result = {.api = api, .api_million_tokens = million_tokens(api, traffic)};
    const double token = result.api_million_tokens / 1e6;
    result.api_a_month = token * traffic.tokens_a_month;
    result.least_tokens_a_month = least_traffic(box, tokens_per_second, token);
    const double saved_a_month = result.api_a_month - ours.running_a_month;
    const double months = ours.bought / saved_a_month;
    if (saved_a_month <= 0) {
      result.why_never = "running them alone costs more than the API";
    } else if (ours.bought > 0 && months > box.months_of_life) {
      result.why_never = fmt::format("they are worn out before: it would take {:.3g} years of {:.3g}", months / 12,
                                     box.months_of_life / 12);
    } else {
      result.months = months;
      result.tokens = months * traffic.tokens_a_month;
    }
    results.push_back(result);
  }
  return results;
}

std::string day_after(const std::string& from, double months) {
  int year = 0;
  unsigned month = 0, day = 0;
  char more = 0;
  const bool read = std::sscanf(from.c_str(), "%4d-%2u-%2u%c", &year, &month, &day, &more) == 3 && from.size() == 10;
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(month), std::chrono::day(day)};
  if (!read || !date.ok()) fail(Fault::usage, "--from {} is no day; write it as 2024-07-23", from);
  const std::chrono::year_month_day then =
      std::chrono::sys_days(date) + std::chrono::days(static_cast<int64_t>(std::ceil(months * kDaysAMonth)));
  return fmt::format("{:04d}-{:02d}-{:02d}", static_cast<int>(then.year()), static_cast<unsigned>(then.month()),
                     static_cast<unsigned>(then.day()));
}

std::string today() {
  const std::chrono::year_month_day date = std::chrono::floor<std::chrono::days>(std::chrono::system_clock::now());
  return fmt::format("{:04d}-{:02d}-{:02d}", static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                     static_cast<unsigned>(date.day()));
}

}  // namespace drover
