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
  for (size_t i = 0; i < rows.size(); ++i)
    std::copy(rows[i].begin(), rows[i].end(), m.values.begin() + static_cast<std::ptrdiff_t>(i) * m.cols);
  return m;
}

// Next to every row lies what must not be looked at: the largest number there is, and a NaN.
Doubles fenced(const Doubles& logits) {
  Doubles wide(logits.rows, logits.cols + 2);
  for (int64_t r = 0; r < logits.rows; ++r) {
    for (int64_t i = 0; i < logits.cols; ++i) wide(r, i) = logits(r, i);
    wide(r, logits.cols) = kLargest;
    wide(r, logits.cols + 1) = NAN;
  }
  return wide;
}

std::vector<int32_t> ids_of(const Held& tokens) {
  EXPECT_TRUE(tokens.guard_intact());
  std::vector<int32_t> ids;
  for (double id : tokens.values().values) ids.push_back(static_cast<int32_t>(id));
  return ids;
}

std::vector<int32_t> choose(Backend& backend, const Doubles& logits, const std::vector<SamplingRow>& rows) {
  Doubles choices(logits.rows, kSamplingColumns);
  for (int64_t r = 0; r < logits.rows; ++r) {
    const SamplingRow& how = rows[static_cast<size_t>(r)];
    int64_t column = 0;
    for (const float value : {how.temperature, how.top_p, how.top_k, how.min_p, how.uniform}) {
      choices(r, column++) = static_cast<double>(value);
    }
  }
  const Held all(fenced(logits), DType::f32, 3), held(choices, DType::f32, 2), tokens(logits.rows, 1, DType::i32);
  backend.sample(Tensor(all).columns(0, logits.cols), held, tokens);
  return ids_of(tokens);
}

std::vector<int32_t> choose(Backend& backend, const Doubles& logits) {  // greedily
  return choose(backend, logits, std::vector<SamplingRow>(static_cast<size_t>(logits.rows), {.temperature = 0}));
}

std::vector<int32_t> choose(Backend& backend, const Doubles& logits, SamplingRow how,
                            const std::vector<double>& uniform) {
  std::vector<SamplingRow> rows(uniform.size(), how);
  for (size_t i = 0; i < rows.size(); ++i) rows[i].uniform = static_cast<float>(uniform[i]);
  return choose(backend, logits, rows);
}

std::vector<int32_t> choose_at(Backend& backend, const std::vector<double>& row, SamplingRow how,
                               const std::vector<double>& uniform) {
  return choose(backend, rows_of(std::vector(uniform.size(), row)), how, uniform);
}
std::vector<int32_t> choose_at(Backend& backend, const std::vector<double>& row, float temperature, float top_p,
                               const std::vector<double>& uniform) {
  return choose_at(backend, row, SamplingRow{.temperature = temperature, .top_p = top_p}, uniform);
}

TEST(Sample, GreedyTakesTheLargestAndOfEqualsTheFirst) {
  const auto backend = backend_under_test();
  EXPECT_EQ(choose(*backend, rows_of({{1, 3, 2, 3, -5},
                                      {-2, -1, -7, -1, -9},
                                      {-0.0, 0.0, -1, 0.0, -2},
                                      {-kLargest, -kLargest, -kLargest, -kLargest, -kLargest}})),
            (std::vector<int32_t>{1, 1, 0, 0}));
  EXPECT_EQ(choose(*backend, rows_of({{4}})), std::vector<int32_t>{0});
  Doubles wide = drawn_matrix(3, 2, 4999, DType::f32, 5);
  wide(0, 4998) = wide(1, 1025) = wide(1, 2049) = 6;
  EXPECT_EQ(choose(*backend, wide), (std::vector<int32_t>{4998, 1025}));
}

TEST(Sample, GreedyTakesTheFirstOfTwoEqualsWhereverTheyStand) {
  const auto backend = backend_under_test();
  for (const int64_t n : {1, 7, 8, 9, 16, 19}) {
    Doubles logits(n * n, n);
    std::ranges::fill(logits.values, -3);
    std::vector<int32_t> expected;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        logits(i * n + j, i) = logits(i * n + j, j) = -2;
        expected.push_back(static_cast<int32_t>(std::min(i, j)));
      }
    }
    EXPECT_EQ(choose(*backend, logits), expected) << n;
  }
}

TEST(Sample, WhatIsNotFiniteIsSaid) {
  const auto backend = backend_under_test();
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                           -std::numeric_limits<double>::infinity()}) {
    for (const int64_t at : {0, 7, 1500}) {
      Doubles logits = drawn_matrix(1, 3, 1501, DType::f32, 4);
      logits(1, at) = bad;
      const std::vector<int32_t> greedy = choose(*backend, logits),
                                 drawn = choose(*backend, logits, {.top_p = 0.9f}, {0.5, 0.5, 0.5});
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
  EXPECT_EQ(choose_at(*backend, row, 1e-30f, 1, uniform),
            (std::vector<int32_t>{1, 1, 3, 3}));  // both largest stay equal
  EXPECT_EQ(choose_at(*backend, row, kLargest, 1, {0, 0.5, 0.999}), (std::vector<int32_t>{1, 2, 5}));
  EXPECT_EQ(choose_at(*backend, {-3}, 0.7f, 0.9f, uniform), std::vector<int32_t>(4, 0));
  EXPECT_EQ(choose_at(*backend, {kLargest, -kLargest}, 1e-30f, 1, uniform), std::vector<int32_t>(4, 0));
}

TEST(Sample, TopKAndMinPLeaveTheFirstOnes) {
  const auto backend = backend_under_test();
  const std::vector<double> row = {0, 3, 1, 3, 2.9, -4, 0.5};  // in order: 1 3 4 2 6 0 5
  const std::vector<double> uniform = {0, 0.4, 0.7, 1 - 0x1p-24};
  EXPECT_EQ(choose_at(*backend, row, {.top_k = 1}, uniform), std::vector<int32_t>(4, 1));
  EXPECT_EQ(choose_at(*backend, row, {.top_k = 2}, uniform), (std::vector<int32_t>{1, 1, 3, 3}));
  EXPECT_EQ(choose_at(*backend, row, {.top_k = 3}, uniform), (std::vector<int32_t>{1, 3, 4, 4}));
  EXPECT_EQ(choose_at(*backend, row, {.min_p = 0.95f}, uniform), (std::vector<int32_t>{1, 1, 3, 3}));
  EXPECT_EQ(choose_at(*backend, row, {.min_p = 0.9f}, uniform), (std::vector<int32_t>{1, 3, 4, 4}));
  EXPECT_EQ(choose_at(*backend, row, {.min_p = 1}, uniform), (std::vector<int32_t>{1, 1, 3, 3}));
  // At a high temperature the nucleus is taken of what min-p leaves, all of it equally likely.
  EXPECT_EQ(choose_at(*backend, row, {.temperature = 1e6f, .top_p = 0.5f, .top_k = 4}, uniform),
            (std::vector<int32_t>{1, 1, 3, 3}));
  EXPECT_EQ(choose_at(*backend, row, {.top_k = 100}, {1 - 0x1p-24}), std::vector<int32_t>{5});
}

TEST(Sample, ChoosesWhatPlainLoopsChoose) {
  const auto backend = backend_under_test();
  constexpr int64_t kRows = 6;
  for (const int64_t columns : {1, 2, 16, 17, 101, 1025, 2999}) {
    for (const float temperature : {0.05f, 0.7f, 30.0f}) {
      for (const SamplingRow limits : {SamplingRow{.top_p = 0.1f},
                                       {.top_p = 0.95f},
                                       {},
                                       {.top_p = 0.9f, .top_k = 20},
                                       {.min_p = 0.2f},
                                       {.top_p = 0.6f, .top_k = 7, .min_p = 0.01f}}) {
        const uint64_t seed = static_cast<uint64_t>(columns) * 100 + static_cast<uint64_t>(temperature * 10);
        Doubles logits = drawn_matrix(seed, kRows, columns, DType::f32, 8);
        for (int64_t r = 0; r < kRows; r += 3) {  // many equals, of both signs
          for (int64_t i = 0; i < columns; ++i) logits(r, i) = std::round(logits(r, i));
        }
        std::vector<SamplingRow> rows(kRows, limits);
        for (uint64_t r = 0; r < kRows; ++r) {  // each row has settings of its own
          rows[r].temperature = temperature * (1 + static_cast<float>(r) / 8);
          rows[r].uniform = philox_uniform(PhiloxKey::of(seed + 1), r);
        }
        const std::vector<int32_t> got = choose(*backend, logits, rows);
        for (size_t r = 0; r < kRows; ++r) {
          const size_t n = static_cast<size_t>(columns);
          const Choice expected = sampled(std::span(logits.values).subspan(r * n, n), rows[r]);
          // Rounding may decide where two fp64 sums over the row meet.
          if (expected.margin <= static_cast<double>(columns) * 0x1p-46) continue;
          EXPECT_EQ(got[r], expected.column)
              << columns << " columns, temperature " << rows[r].temperature << ", top_p " << limits.top_p << ", top_k "
              << limits.top_k << ", min_p " << limits.min_p << ", row " << r;
        }
      }
    }
  }
}

TEST(Penalize, ChangesWhatIsNamedOnly) {
  const auto backend = backend_under_test();
  Doubles logits = rows_of({{1, -2, 3, 0.5}, {-1, 4, 0, -3}});
  const Held held(logits, DType::f32, 3);
  const Held places(rows_of({{0, 0}, {1, 3}, {1, 2}, {0, 1}}), DType::i32, 1);
  const Held changes(rows_of({{0, 2, 0}, {0, 2, 0.25}, {1.5, 3, 0}, {4, 4, 1}}), DType::f32);
  backend->penalize(held, places, changes);
  logits(0, 0) = 0.5;            // a positive one is divided
  logits(1, 3) = -3 * 2 - 0.25;  // a negative one multiplied
  logits(1, 2) = 0.5;            // the bias is first
  logits(0, 1) = 2.0 / 4 - 1;    // and may change the sign
  EXPECT_TRUE(exactly(held, logits));
  backend->penalize(held, Tensor(places).rows_from(0, 0), Tensor(changes).rows_from(0, 0));
  EXPECT_TRUE(exactly(held, logits));
}

// Bits drawn at random for some rows, as numbers that an i32 tensor holds; those beyond the last column are 1.
struct DrawnBits {
  DrawnBits(uint64_t seed, int64_t rows, int64_t columns) : words(rows, bit_words(columns)) {
    for (int64_t r = 0; r < rows; ++r) {
      std::vector<bool>& row = bits.emplace_back();
      for (int64_t v = 0; v < words.cols * kBitsPerWord; ++v) {
        row.push_back(v >= columns || philox_uniform(PhiloxKey::of(seed), static_cast<uint64_t>(r << 20 | v)) < 0.3f);
      }
      for (int64_t w = 0; w < words.cols; ++w) {
        uint32_t word = 0;
        for (int64_t b = 0; b < kBitsPerWord; ++b) {
          if (row[static_cast<size_t>(w * kBitsPerWord + b)]) word |= 1u << b;
        }
        words(r, w) = static_cast<double>(static_cast<int32_t>(word));
      }
    }
  }
  Doubles words;
  std::vector<std::vector<bool>> bits;
};

TEST(Allow, ForbidsTheOtherColumnsOfItsRows) {
  const auto backend = backend_under_test();
  for (const int64_t columns : {1, 31, 32, 33, 301, 1025}) {
    Doubles logits = drawn_matrix(static_cast<uint64_t>(columns), 4, columns, DType::f32, 8);
    logits(3, columns / 2) = INFINITY;
    logits(0, columns - 1) = -INFINITY;
    const DrawnBits drawn(static_cast<uint64_t>(columns), 3, columns);
    const std::vector<int64_t> rows = {3, 0, 1};
    const Held all(fenced(logits), DType::f32, 3), held(drawn.words, DType::i32, 2);
    const Held which(rows_of({{3}, {0}, {1}}), DType::i32, 1);
    backend->allow(Tensor(all).columns(0, columns), which, held);
    for (size_t i = 0; i < rows.size(); ++i) {
      allow(std::span(logits.values).subspan(static_cast<size_t>(rows[i] * columns), static_cast<size_t>(columns)),
            drawn.bits[i]);
    }
    const Doubles got = all.values(), expected = fenced(logits);
    for (int64_t r = 0; r < 4; ++r) {
      for (int64_t v = 0; v <= columns; ++v) EXPECT_EQ(got(r, v), expected(r, v)) << columns << ": " << r << ", " << v;
    }
    EXPECT_TRUE(all.guard_intact());
    backend->allow(Tensor(all).columns(0, columns), Tensor(which).rows_from(0, 0), Tensor(held).rows_from(0, 0));
    EXPECT_EQ(all.values()(2, 0), logits(2, 0));
  }
}

// Whatever the limits and the draw, and also where all that is allowed is most unlikely.
TEST(Allow, WhatIsForbiddenIsNeverChosen) {
  const auto backend = backend_under_test();
  constexpr int64_t kColumns = 301, kRows = 6;
  const DrawnBits drawn(5, kRows, kColumns);
  Doubles logits = drawn_matrix(6, kRows, kColumns, DType::f32, 8);
  for (int64_t v = 0; v < kColumns; ++v) {
    if (drawn.bits[1][static_cast<size_t>(v)]) logits(1, v) = -1e30;
  }
  logits(2, 7) = NAN;
  for (const SamplingRow limits : {SamplingRow{.temperature = 0},
                                   {},
                                   {.temperature = 1e6f},
                                   {.temperature = 1e30f, .top_p = 0.999f},
                                   {.temperature = 1e6f, .top_k = 290},
                                   {.temperature = 2, .top_p = 0.9f, .min_p = 1e-6f}}) {
    for (const float uniform : {0.0f, 0.3f, 0.9f, 1 - 0x1p-24f}) {
      const Held held(logits, DType::f32), words(drawn.words, DType::i32), tokens(kRows, 1, DType::i32);
      Doubles which(kRows, 1), choices(kRows, kSamplingColumns);
      for (int64_t r = 0; r < kRows; ++r) {
        which(r, 0) = static_cast<double>(r);
        choices(r, 0) = static_cast<double>(limits.temperature), choices(r, 1) = static_cast<double>(limits.top_p);
        choices(r, 2) = static_cast<double>(limits.top_k), choices(r, 3) = static_cast<double>(limits.min_p);
        choices(r, 4) = static_cast<double>(uniform);
      }
      backend->allow(held, Held(which, DType::i32), words);
      backend->sample(held, Held(choices, DType::f32), tokens);
      const std::vector<int32_t> ids = ids_of(tokens);
      for (size_t r = 0; r < kRows; ++r) {
        if (r == 2) {
          EXPECT_EQ(ids[r], -1);
        } else {
          ASSERT_GE(ids[r], 0);
          EXPECT_TRUE(drawn.bits[r][static_cast<size_t>(ids[r])]) << r << ", temperature " << limits.temperature;
        }
      }
    }
  }
}

TEST(LogProbabilities, OfTheChosenAndTheLikeliest) {
  const auto backend = backend_under_test();
  for (const int64_t columns : {1, 17, 2999}) {
    for (const int64_t k : {int64_t{0}, int64_t{1}, std::min<int64_t>(columns, 20)}) {
      constexpr int64_t kRows = 4;
      Doubles logits = drawn_matrix(static_cast<uint64_t>(columns), kRows, columns, DType::f32, 8);
      for (int64_t i = 0; i < columns; ++i) logits(2, i) = std::round(logits(2, i));  // many equals
      logits(3, columns / 2) = NAN;
      Doubles chosen(kRows, 1);
      for (int64_t r = 0; r < kRows; ++r) chosen(r, 0) = static_cast<double>(r * 7 % columns);
      const Held all(fenced(logits), DType::f32), tokens(chosen, DType::i32), values(kRows, 1, DType::f32),
          top(kRows, k, DType::i32, 2), top_values(kRows, k, DType::f32, 1);
      backend->log_probabilities(Tensor(all).columns(0, columns), tokens, values, top, top_values);
      ASSERT_TRUE(values.guard_intact() && top.guard_intact() && top_values.guard_intact());
      for (int64_t r = 0; r < kRows; ++r) {
        const double value = values.values()(r, 0);
        if (r == 3) {
          EXPECT_TRUE(std::isnan(value));
          for (int64_t i = 0; i < k; ++i) EXPECT_EQ(top.values()(r, i), -1);
          continue;
        }
        double sum = 0;
        std::vector<int64_t> order;
        for (int64_t i = 0; i < columns; ++i) {
          sum += std::exp(logits(r, i));
          order.push_back(i);
        }
        std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return logits(r, a) > logits(r, b); });
        const auto log_p = [&](int64_t column) { return logits(r, column) - std::log(sum); };
        EXPECT_NEAR(value, log_p(r * 7 % columns), 1e-5);
        for (int64_t i = 0; i < k; ++i) {
          EXPECT_EQ(top.values()(r, i), static_cast<double>(order[static_cast<size_t>(i)])) << columns << ", " << i;
          EXPECT_NEAR(top_values.values()(r, i), log_p(order[static_cast<size_t>(i)]), 1e-5);
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
  for (uint64_t i = 0; i < kDraws; ++i)
    uniform.push_back(static_cast<double>(philox_uniform(PhiloxKey::of(42), i * 4, 3)));
  std::map<int32_t, int64_t> seen;
  for (int32_t id : choose_at(*backend, row, static_cast<float>(kTemperature), static_cast<float>(kTopP), uniform))
    ++seen[id];
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
