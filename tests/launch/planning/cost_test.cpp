// What runs and tokens cost, against numbers worked by hand.
#include "launch/planning/cost.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "launch/planning/break_even.h"

namespace drover {
namespace {

Prices rent(double price, double utilisation) {
  return {.where = "p.yaml", .currency = "USD", .machine = RentedGpu{price, utilisation}};
}

// 120 000 over five years is 2000 a month; 10 kW at 0.10 are 1 an hour of work.
Prices own() {
  return {.where = "p.yaml",
          .currency = "USD",
          .machine = OwnedBox{.price = 120'000,
                              .gpus = 8,
                              .life_years = 5,
                              .utilisation = 0.5,
                              .watts = 10'000,
                              .kwh_price = 0.1,
                              .hosting_a_month = 500}};
}

TEST(Cost, ARunOnRentedGpus) {
  // 36 000 s on 8 GPUs are 80 GPU-hours; at 2 they cost 160, which is 4 for each of 40 million trained tokens and 1.60
  // for each of all 100 million.
  const RunEstimate run = {.run_seconds = 36'000, .ranks = 8, .trained_tokens = 40'000'000, .tokens = 100'000'000};
  const RunCost cost = cost_of(run, rent(2, 1));
  EXPECT_DOUBLE_EQ(cost.gpu_hours, 80);
  EXPECT_DOUBLE_EQ(cost.total, 160);
  EXPECT_DOUBLE_EQ(cost.million_trained_tokens, 4);
  EXPECT_DOUBLE_EQ(cost.million_tokens, 1.6);
  // Rented for twice the hours that it works, an hour of work costs twice as much.
  EXPECT_DOUBLE_EQ(cost_of(run, rent(2, 0.5)).total, 320);
  EXPECT_EQ(print_cost(run, rent(2, 1)),
            "cost: 80.0 GPU-hours at 2.00 USD = 160.00 USD; 4.00 USD a million trained tokens, 1.60 USD a million "
            "tokens\n");
  EXPECT_EQ(cost_json(run, rent(2, 1)).dump(),
            R"({"currency":"USD","gpu_hours":80.0,"gpu_hour_price":2.0,"cost":160.0,)"
            R"("cost_a_million_trained_tokens":4.0,"cost_a_million_tokens":1.6})");
}

TEST(Cost, AnHourOfAnOwnedBox) {
  // A year has 8766 hours. 262 980 over two years, half of which it works: 262 980 / 8766 = 30 an hour of work.
  // Hosting: 1461 a month are 2 an hour, 4 an hour of work. Power: 10 kW at 0.10 are 1. Together 35, over ten
  // GPUs 3.50.
  Prices prices = own();
  prices.machine = OwnedBox{.price = 262'980,
                            .gpus = 10,
                            .life_years = 2,
                            .utilisation = 0.5,
                            .watts = 10'000,
                            .kwh_price = 0.1,
                            .hosting_a_month = 1461};
  EXPECT_DOUBLE_EQ(gpu_hour_price(prices), 3.5);
  std::get<OwnedBox>(prices.machine).hosting_a_month.reset();
  EXPECT_DOUBLE_EQ(gpu_hour_price(prices), 3.1);
}

TEST(Cost, MoneyReadsWell) {
  EXPECT_EQ(money(0.001234), "0.00123");
  EXPECT_EQ(money(12.345), "12.35");
  EXPECT_EQ(money(123.4), "123.40");
  EXPECT_EQ(money(1234.5), "1 234.50");
  EXPECT_EQ(money(12'345'678.9), "12 345 678.90");
}

constexpr int64_t kGpus = 8;
constexpr double kRate = 1000;                     // tokens a second of a busy box
const Traffic kTraffic = {300, 100, 720'000'000};  // three tokens of prompts for one of answers

TEST(BreakEven, WhatTheMachinesCost) {
  // A box carries 1000·0.5 tokens/s, over 730.5 h a month 1.3149 billion. 720 million take 720e6 / 3.6e6 = 200 h of
  // work, which is 200 for power; with 500 for hosting 700 a month, and 2000 for the box itself.
  const MachinesCost cost = machines_cost(own(), kGpus, kRate, kTraffic);
  EXPECT_EQ(cost.boxes, 1);
  EXPECT_DOUBLE_EQ(cost.tokens_a_month_of_a_box, 1.3149e9);
  EXPECT_DOUBLE_EQ(cost.hours_of_work, 200);
  EXPECT_DOUBLE_EQ(cost.running_a_month, 700);
  EXPECT_DOUBLE_EQ(cost.a_month, 2700);
  EXPECT_DOUBLE_EQ(cost.million_tokens, 3.75);
  // 2 billion take two boxes and 2e9 / 3.6e6 = 555.6 h.
  const MachinesCost two = machines_cost(own(), kGpus, kRate, {300, 100, 2e9});
  EXPECT_EQ(two.boxes, 2);
  EXPECT_DOUBLE_EQ(two.bought, 240'000);
  EXPECT_DOUBLE_EQ(two.running_a_month, 1000 + 2e9 / 3.6e6);
}

TEST(BreakEven, PaidBackOrNever) {
  Prices prices = own();
  prices.apis = {{.name = "dear", .input = 4, .output = 8},
                 {.name = "middling", .input = 2, .output = 2},
                 {.name = "cheap", .input = 0.1, .output = 0.3}};
  const std::vector<BreakEven> all = break_even(prices, kGpus, kRate, kTraffic);
  ASSERT_EQ(all.size(), 3u);
  // (3·4 + 8) / 4 = 5 a million: 3600 a month, 2900 more than running costs; 120 000 / 2900 = 41.38 months of 720
  // million tokens.
  EXPECT_DOUBLE_EQ(all[0].api_million_tokens, 5);
  EXPECT_DOUBLE_EQ(all[0].api_a_month, 3600);
  EXPECT_DOUBLE_EQ(all[0].months.value(), 120'000.0 / 2900);
  EXPECT_DOUBLE_EQ(all[0].tokens.value(), 120'000.0 / 2900 * 720e6);
  // A token takes 1 / 3.6e6 = 0.2778e-6 of power: (2000 + 500) / (5e-6 - 0.2778e-6) = 529.4 million a month.
  EXPECT_NEAR(all[0].least_tokens_a_month.value(), 529.41e6, 0.01e6);
  // 1440 a month, 740 more than running: 162 months, and it lasts 60. 2500 / (2e-6 - 0.2778e-6) = 1.4516 billion a
  // month, more than a box carries.
  EXPECT_FALSE(all[1].months || all[1].tokens || all[1].least_tokens_a_month);
  EXPECT_EQ(all[1].why_never, "they are worn out before: it would take 13.5 years of 5");
  // 0.15 a million, 108 a month; power alone is 0.28 a million.
  EXPECT_FALSE(all[2].months || all[2].least_tokens_a_month);
  EXPECT_EQ(all[2].why_never, "running them alone costs more than the API");
}

TEST(BreakEven, Rented) {
  // 8 GPUs at 2 for 730.5 h: 11 688 a month, as much as 2.3376 billion tokens at 5 a million.
  Prices prices = rent(2, 1);
  prices.apis = {{.name = "a", .input = 5, .output = 5}};
  const BreakEven enough = break_even(prices, kGpus, kRate, {1, 1, 2.4e9})[0];
  EXPECT_EQ(enough.months, 0);
  EXPECT_DOUBLE_EQ(enough.least_tokens_a_month.value(), 2.3376e9);
  const BreakEven few = break_even(prices, kGpus, kRate, {1, 1, 2.3e9})[0];
  EXPECT_FALSE(few.months);
  EXPECT_EQ(few.why_never, "running them alone costs more than the API");
}

TEST(BreakEven, Days) {
  EXPECT_EQ(day_after("2024-07-23", 0), "2024-07-23");
  EXPECT_EQ(day_after("2024-07-23", 1), "2024-08-23");   // 30.4375 days, begun ones counted
  EXPECT_EQ(day_after("2024-07-23", 12), "2025-07-24");  // 365.25
  EXPECT_EQ(today().size(), 10u);
  EXPECT_EQ(day_after(today(), 0), today());
  for (const char* wrong : {"2024-02-30", "2024-7-23", "tomorrow", "2024-07-231", ""}) {
    EXPECT_THROW(day_after(wrong, 1), Error) << wrong;
  }
}

}  // namespace
}  // namespace drover
