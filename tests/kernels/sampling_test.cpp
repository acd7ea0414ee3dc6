// The choice of the next token: its order, its nucleus and its draws.
#include <gtest/gtest.h>

#include <limits>
#include <map>

#include "kernels/backend.h"
#include "kernels/base/error.h"
#include "tests/reference/compare.h"

namespace drover {
namespace {

using namespace reference;

constexpr float kLargest = 0x1.fffffep127f;

Doubles rows_of(const std::vector<std::vector<double>>& rows) {
  Doubles m(static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows.front().size()));
  for (size_t i = 0; i < rows.size(); ++i) std::copy(rows[i].begin(), rows[i].end(), m.values.begin() + static_cast<std::ptrdiff_t>(i) * m.cols);
  return m;
}

// Beside every row lies what must not be looked at: the largest number there is, and a NaN.
std::vector<int32_t> choose(Backend& backend, const Doubles& logits, float temperature = 1, float top_p = 1, const std::vector<double>& uniform = {}) {
  Doubles wide(logits.rows, logits.cols + 2);
  for (int64_t r = 0; r < logits.rows; ++r) {
    for (int64_t i = 0; i < logits.cols; ++i) wide(r, i) = logits(r, i);
    wide(r, logits.cols) = kLargest;
    wide(r, logits.cols + 1) = NAN;
  }
  Doubles draws(static_cast<int64_t>(uniform.size()), 1);
  draws.values = uniform;
  const Held all(wide, DType::f32, 3), drawn(draws, DType::f32), tokens(logits.rows, 1, DType::i32);
  backend.sample(Tensor(all).columns(0, logits.cols), temperature, top_p, uniform.empty() ? Tensor{} : Tensor(drawn), tokens);
  EXPECT_TRUE(tokens.guard_intact());
  std::vector<int32_t> ids;
  for (double id : tokens.values().values) ids.push_back(static_cast<int32_t>(id));
  return ids;
}

std::vector<int32_t> choose_at(Backend& backend, const std::vector<double>& row, float temperature, float top_p, const std::vector<double>& uniform) {
  return choose(backend, rows_of(std::vector(uniform.size(), row)), temperature, top_p, uniform);
}

TEST(Sample, GreedyTakesTheLargestAndOfEqualsTheFirst) {
  const auto backend = backend_under_test();
  EXPECT_EQ(choose(*backend, rows_of({{1, 3, 2, 3, -5}, {-2, -1, -7, -1, -9}, {-0.0, 0.0, -1, 0.0, -2}, {-kLargest, -kLargest, -kLargest, -kLargest, -kLargest}})),
            (std::vector<int32_t>{1, 1, 0, 0}));
  EXPECT_EQ(choose(*backend, rows_of({{4}})), std::vector<int32_t>{0});
  Doubles wide = drawn_matrix(3, 2, 4999, DType::f32, 5);
  wide(0, 4998) = wide(1, 1025) = wide(1, 2049) = 6;
  EXPECT_EQ(choose(*backend, wide), (std::vector<int32_t>{4998, 1025}));
}

TEST(Sample, WhatIsNotFiniteIsSaid) {
  const auto backend = backend_under_test();
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()}) {
    for (const int64_t at : {0, 7, 1500}) {
      Doubles logits = drawn_matrix(1, 3, 1501, DType::f32, 4);
      logits(1, at) = bad;
      const std::vector<int32_t> greedy = choose(*backend, logits), drawn = choose(*backend, logits, 1, 0.9f, {0.5, 0.5, 0.5});
      for (const std::vector<int32_t>& ids : {greedy, drawn}) {
        EXPECT_GE(ids[0], 0);
        EXPECT_EQ(ids[1], -1) << bad << " at " << at;
        EXPECT_GE(ids[2], 0);
      }
    }
  }
}

// A fair choice among equals is exact: `uniform` cuts the ids into equal parts in their order.
TEST(Sample, EqualsShareEvenlyInTheOrderOfTheirIds) {
  const auto backend = backend_under_test();
  const std::vector<double> row = {2, -1000, 2, 2, -1000, 2};
  const std::vector<double> uniform = {0, 0.249, 0.25, 0.499, 0.5, 0.749, 0.75, 1 - 0x1p-24};
  EXPECT_EQ(choose_at(*backend, row, 1, 1, uniform), (std::vector<int32_t>{0, 0, 2, 2, 3, 3, 5, 5}));
  // Half the mass is exactly two of them: the line is reached, not crossed.
  EXPECT_EQ(choose_at(*backend, row, 1, 0.5f, uniform), (std::vector<int32_t>{0, 0, 0, 0, 2, 2, 2, 2}));
  EXPECT_EQ(choose_at(*backend, row, 1, 0.51f, {0.99}), std::vector<int32_t>{3});
}

TEST(Sample, ATinyNucleusAndATinyTemperatureAreGreedy) {
  const auto backend = backend_under_test();
  const std::vector<double> row = {0, 3, 1, 3, 2.9, -4, 0.5};
  const std::vector<double> uniform = {0, 0.3, 0.7, 1 - 0x1p-24};
  EXPECT_EQ(choose_at(*backend, row, 1, 1e-30f, uniform), std::vector<int32_t>(4, 1));
  EXPECT_EQ(choose_at(*backend, row, 1e-30f, 1, uniform), (std::vector<int32_t>{1, 1, 3, 3}));  // both largest stay equal
  EXPECT_EQ(choose_at(*backend, row, kLargest, 1, {0, 0.5, 0.999}), (std::vector<int32_t>{1, 2, 5}));
  EXPECT_EQ(choose_at(*backend, {-3}, 0.7f, 0.9f, uniform), std::vector<int32_t>(4, 0));
  EXPECT_EQ(choose_at(*backend, {kLargest, -kLargest}, 1e-30f, 1, uniform), std::vector<int32_t>(4, 0));
}

TEST(Sample, ChoosesWhatPlainLoopsChoose) {
  const auto backend = backend_under_test();
  constexpr int64_t kRows = 6;
  for (const int64_t columns : {1, 2, 16, 17, 101, 1025, 2999}) {
    for (const float temperature : {0.05f, 0.7f, 30.0f}) {
      for (const float top_p : {0.1f, 0.95f, 1.0f}) {
        const uint64_t seed = static_cast<uint64_t>(columns) * 100 + static_cast<uint64_t>(temperature * 10);
        Doubles logits = drawn_matrix(seed, kRows, columns, DType::f32, 8);
        for (int64_t r = 0; r < kRows; r += 3) {  // many equals, of both signs
          for (int64_t i = 0; i < columns; ++i) logits(r, i) = std::round(logits(r, i));
        }
        const std::vector<double> uniform = [&] {
          std::vector<double> u;
          for (uint64_t r = 0; r < kRows; ++r) u.push_back(static_cast<double>(philox_uniform(PhiloxKey::of(seed + 1), r)));
          return u;
        }();
        const std::vector<int32_t> got = choose(*backend, logits, temperature, top_p, uniform);
        for (int64_t r = 0; r < kRows; ++r) {
          const Choice expected = sampled(std::span(logits.values).subspan(static_cast<size_t>(r * columns), static_cast<size_t>(columns)), temperature, top_p, uniform[static_cast<size_t>(r)]);
          // Rounding may decide where two fp64 sums over the row meet.
          if (expected.margin <= static_cast<double>(columns) * 0x1p-46) continue;
          EXPECT_EQ(got[static_cast<size_t>(r)], expected.column) << columns << " columns, temperature " << temperature << ", top_p " << top_p << ", row " << r;
        }
      }
    }
  }
}

// Pearson's χ² of draws against the distribution they are of, in the nucleus and nowhere else.
TEST(Sample, DrawsFollowTheDistribution) {
  const auto backend = backend_under_test();
  const std::vector<double> row = {1.0, -0.5, 2.0, 0.3, 2.0, -3.0, 1.5, 0.0};
  constexpr int64_t kDraws = 400;
  constexpr double kTemperature = 0.8, kTopP = 0.95;
  std::vector<double> uniform;
  for (uint64_t i = 0; i < kDraws; ++i) uniform.push_back(static_cast<double>(philox_uniform(PhiloxKey::of(42), i * 4, 3)));
  std::map<int32_t, int64_t> seen;
  for (int32_t id : choose_at(*backend, row, static_cast<float>(kTemperature), static_cast<float>(kTopP), uniform)) ++seen[id];
  std::map<int32_t, double> p;
  double all = 0, mass = 0;
  for (double l : row) all += std::exp(l / kTemperature);
  for (const int32_t id : {2, 4, 6, 0, 3, 7, 1, 5}) {  // falling
    if (mass >= kTopP * all) break;
    p[id] = std::exp(row[static_cast<size_t>(id)] / kTemperature);
    mass += p[id];
  }
  ASSERT_EQ(p.size(), 5u);
  double chi = 0;
  int64_t inside = 0;
  for (const auto& [id, share] : p) {
    const double expected = share / mass * kDraws;
    chi += (static_cast<double>(seen[id]) - expected) * (static_cast<double>(seen[id]) - expected) / expected;
    inside += seen[id];
  }
  EXPECT_EQ(inside, kDraws);
  EXPECT_LT(chi, 18.5);  // four degrees of freedom: exceeded once in a thousand
}

}  // namespace
}  // namespace drover
