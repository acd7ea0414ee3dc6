// Products in fp8 against plain loops over the same codes: what differs is the order of sums alone.
#include "kernels/fp8_products.h"

#include <gtest/gtest.h>

#include "tests/reference/compare.h"
#include "tests/reference/fp8_reference.h"
#include "tests/support/quantised.h"

namespace drover {
namespace {

using namespace reference;

constexpr DType kFloats[] = {DType::f32, DType::bf16};
constexpr QuantisedKind kKinds[] = {
    {Format::fp8, kMadeBlocks, false, Rounding::none, Products::fp8},
    {Format::fp8, {1, 0}, false, Rounding::none, Products::fp8, 0.5f},
    {Format::fp8, {1, 0}, false, Rounding::bf16, Products::fp8},
    {Format::fp8, {0, 0}, false, Rounding::none, Products::fp8},
};

// Two parts, each with a block that is short at its tensor's end; the columns end in one.
QuantisedWeight weight_of(Backend& backend, const QuantisedKind& kind) {
  return QuantisedWeight(backend, kind, {{1, 128, 192}, {2, 0, 144}}, {128, 192}, 320, 320);
}
std::vector<ScaledRun> input_runs(const QuantisedKind& kind) {
  if (kind.blocks.columns == 0) return {{0, 192}};
  return {{0, 128}, {128, 64}};
}
std::vector<ScaledRun> output_runs(const QuantisedKind& kind) {
  if (kind.blocks.columns == 0) return {{0, 336}};
  return {{0, 128}, {128, 64}, {192, 128}, {320, 16}};
}

Matrix<Bounded> bounded(const Held& held) { return as<Bounded>(held.values()); }

// y of `kind`, with or without a low-rank term and what was there.
Matrix<Bounded> expected_y(const QuantisedKind& kind, const QuantisedWeight& w, const Held& x,
                           const Matrix<Bounded>& old) {
  const auto runs = input_runs(kind);
  return fp8_product(quantised(x.values(), runs, static_cast<double>(kind.largest_input)), {w.codes, w.scales}, runs,
                     old);
}

// A scale a row stands inside the sum: it multiplies dy, in fp32, before that is quantised.
Matrix<Bounded> expected_dx(const QuantisedKind& kind, const QuantisedWeight& w, Doubles dy,
                            const Matrix<Bounded>& old) {
  const auto runs = output_runs(kind);
  Coded coded{w.codes, w.scales};
  if (kind.blocks.columns == 0) {
    for (int64_t t = 0; t < dy.rows; ++t) {
      for (int64_t o = 0; o < dy.cols; ++o)
        dy(t, o) = static_cast<double>(static_cast<float>(dy(t, o)) * static_cast<float>(w.scales(o, 0)));
    }
    std::ranges::fill(coded.scales.values, 1.0);
  }
  return fp8_product(quantised(dy, runs), transposed(coded), runs, old);
}

class Fp8Products : public testing::TestWithParam<QuantisedKind> {};

TEST_P(Fp8Products, ForwardSumsTheReferencesCodes) {
  const auto backend = backend_under_test();
  const QuantisedWeight w = weight_of(*backend, GetParam());
  for (const int64_t t : {1, 17}) {
    for (int which = 0; which < 16; ++which) {
      const DType dx = kFloats[which & 1], dy = kFloats[which >> 1 & 1];
      const bool accumulate = which & 4, adapted = which & 8;
      SCOPED_TRACE(fmt::format("T {} case {}", t, which));
      const Held x(drawn_matrix(1, t, 192, dx), dx, 3), y(drawn_matrix(3, t, 336, dy), dy, 7);
      const Held a(drawn_matrix(4, 5, 192, dx), dx, 2), b(drawn_matrix(5, 290, 5, dx), dx), u(t, 5, dx, 2);
      const LowRank term{.a = a, .b = b, .scale = 0.5f, .column = 20};
      auto expected = expected_y(GetParam(), w, x, accumulate ? bounded(y) : Matrix<Bounded>(t, 336));
      const LowRankTerms terms = adapted ? LowRankTerms{{&term, 1}, u, {}} : LowRankTerms{};
      backend->linear(x, *w.weight, terms, accumulate, y);
      if (adapted) {
        for (int64_t i = 0; i < t; ++i) {
          for (int64_t o = 0; o < 290; ++o) {
            for (int64_t r = 0; r < 5; ++r) expected(i, 20 + o) += bounded(u)(i, r) * bounded(b)(o, r);
          }
        }
      }
      EXPECT_TRUE(as_expected(y, expected));
    }
  }
}

TEST_P(Fp8Products, BackwardSumsTheReferencesCodes) {
  const auto backend = backend_under_test();
  const QuantisedWeight w = weight_of(*backend, GetParam());
  for (const int64_t t : {1, 17}) {
    for (int which = 0; which < 8; ++which) {
      const DType ddy = kFloats[which & 1], ddx = kFloats[which >> 1 & 1];
      const bool adapted = which & 4;
      SCOPED_TRACE(fmt::format("T {} case {}", t, which));
      const Held dy(drawn_matrix(1, t, 336, ddy), ddy, 3), dx(drawn_matrix(3, t, 192, ddx), ddx, 7);
      const Held v(drawn_matrix(4, t, 5, ddy), ddy, 2), a(drawn_matrix(5, 5, 192, ddy), ddy, 4);
      const Matrix<Bounded> none(t, 192);
      const auto low =
          adapted ? product(Trans::no, Trans::no, 1.0, bounded(v), bounded(a), 0.0, none) : Matrix<Bounded>(t, 192);
      const auto expected = expected_dx(GetParam(), w, dy.values(), low);
      backend->linear_dx(dy, *w.weight, adapted ? Tensor(v) : Tensor{}, adapted ? Tensor(a) : Tensor{}, dx);
      EXPECT_TRUE(as_expected(dx, expected));
    }
  }
}

// Scales of a neighbouring block or row are seen by the tests above; where all rows have one scale, twice that is.
TEST_P(Fp8Products, AnotherScaleIsNoticed) {
  const auto backend = backend_under_test();
  QuantisedWeight w = weight_of(*backend, GetParam());
  const Held x(drawn_matrix(1, 9, 192, DType::bf16), DType::bf16), y(9, 336, DType::f32);
  const Held dy(drawn_matrix(1, 9, 336, DType::bf16), DType::bf16), dx(9, 192, DType::f32);
  backend->linear(x, *w.weight, {}, false, y);
  backend->linear_dx(dy, *w.weight, {}, {}, dx);
  const int64_t high = std::max<int64_t>(GetParam().blocks.rows, 1);
  for (int64_t j = 0; j < 192; ++j) {
    if (GetParam().blocks == ScaleBlocks{0, 0}) {
      w.scales(0, j) *= 2;
    } else {
      std::swap(w.scales(0, j), w.scales(high, j));
    }
  }
  EXPECT_FALSE(as_expected(y, expected_y(GetParam(), w, x, Matrix<Bounded>(9, 336))));
  EXPECT_FALSE(as_expected(dx, expected_dx(GetParam(), w, dy.values(), Matrix<Bounded>(9, 192))));
}

TEST_P(Fp8Products, GenerationIsWidened) {
  const auto backend = backend_under_test();
  QuantisedKind kind = GetParam();
  const QuantisedWeight in_fp8 = weight_of(*backend, kind);
  kind.products = Products::widened;
  const QuantisedWeight widened = weight_of(*backend, kind);
  const Held x(drawn_matrix(1, 9, 192, DType::bf16), DType::bf16);
  const Held y(9, 336, DType::bf16), plain(9, 336, DType::bf16), fast(9, 336, DType::bf16);
  backend->linear(x, *in_fp8.weight, {}, false, y, SumOrder::by_row);
  backend->linear(x, *widened.weight, {}, false, plain, SumOrder::by_row);
  EXPECT_TRUE(exactly(y, plain.values()));
  backend->linear(x, *in_fp8.weight, {}, false, fast);
  EXPECT_FALSE(exactly(fast, plain.values()));
}

// What is not finite makes its own row NaN and no other, with a bound as without.
TEST_P(Fp8Products, NaNAndInfinityPassOn) {
  const auto backend = backend_under_test();
  const QuantisedWeight w = weight_of(*backend, GetParam());
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    Doubles x = drawn_matrix(1, 4, 192, DType::bf16), dy = drawn_matrix(2, 4, 336, DType::bf16);
    x(2, 130) = dy(2, 200) = bad;
    const Held in(x, DType::bf16), y(4, 336, DType::bf16), back(dy, DType::bf16), dx(4, 192, DType::bf16);
    backend->linear(in, *w.weight, {}, false, y);
    backend->linear_dx(back, *w.weight, {}, {}, dx);
    for (const Doubles& got : {y.values(), dx.values()}) {
      for (int64_t t = 0; t < 4; ++t) {
        for (int64_t i = 0; i < got.cols; ++i) EXPECT_EQ(std::isnan(got(t, i)), t == 2) << t << ' ' << i;
      }
    }
  }
}

TEST_P(Fp8Products, RowsOfZerosAreZeros) {
  const auto backend = backend_under_test();
  const QuantisedWeight w = weight_of(*backend, GetParam());
  const Held x(3, 192, DType::bf16), y(3, 336, DType::bf16), dy(3, 336, DType::bf16), dx(3, 192, DType::bf16);
  backend->linear(x, *w.weight, {}, false, y);
  backend->linear_dx(dy, *w.weight, {}, {}, dx);
  EXPECT_TRUE(exactly(y, Doubles(3, 336)));
  EXPECT_TRUE(exactly(dx, Doubles(3, 192)));
}

INSTANTIATE_TEST_SUITE_P(EveryKind, Fp8Products, testing::ValuesIn(kKinds), [](const auto& kind) {
  return text_of(kind.param) + (kind.param.largest_input > 0 ? "_bounded" : "");
});

// Of 64 numbers, through a weight that is the identity: 448 is the largest, so that a number's scale is 1.
Doubles through_the_identity(const Doubles& numbers, float bound = 0) {
  const auto backend = backend_under_test();
  Arena arena("weights", backend->memory(), 1 << 20);
  WeightShape shape{.out = 64, .in = 64, .format = Format::fp8, .products = Products::fp8};
  shape.scaling = {{1, 0}, false, Rounding::none, 0, 64, {{0, 64}}, bound};
  const auto w = backend->make_weight(arena, shape);
  Fp8Slice identity{.rows = 64, .cols = 64, .blocks = {1, 0}};
  identity.codes.resize(64 * 64);
  identity.scales.assign(64, 1);
  for (size_t i = 0; i < 64; ++i) identity.codes[i * 65] = e4m3_of_float(1);
  static_cast<Fp8Weight&>(*w).load(*backend, 0, identity);
  const Held x(numbers, DType::f32), y(numbers.rows, 64, DType::f32), dx(numbers.rows, 64, DType::f32);
  backend->linear(x, *w, {}, false, y);
  if (bound == 0) {
    backend->linear_dx(x, *w, {}, {}, dx);
    EXPECT_TRUE(exactly(dx, y.values()));
  }
  return y.values();
}

TEST(Fp8Operand, IsRoundedToTheNearestTiesToEven) {
  std::vector<double> numbers;
  const auto& levels = e4m3_numbers();
  for (size_t i = 0; i + 1 < levels.size(); ++i) {
    const float low = static_cast<float>(levels[i]), high = static_cast<float>(levels[i + 1]), tie = (low + high) / 2;
    for (const float v : {low, std::nextafter(tie, 0.0f), tie, std::nextafter(tie, 500.0f)}) {
      numbers.push_back(static_cast<double>(v));
      numbers.push_back(-static_cast<double>(v));
    }
  }
  numbers.push_back(0x1p-140);  // of no account next to 448
  Doubles x((static_cast<int64_t>(numbers.size()) + 62) / 63, 64);
  for (size_t i = 0; i < numbers.size(); ++i)
    x(static_cast<int64_t>(i / 63), static_cast<int64_t>(i % 63) + 1) = numbers[i];
  for (int64_t t = 0; t < x.rows; ++t) x(t, 0) = 448;
  const Doubles y = through_the_identity(x);
  for (size_t i = 0; i < x.values.size(); ++i) EXPECT_EQ(y.values[i], nearest_e4m3(x.values[i])) << x.values[i];
  EXPECT_EQ(nearest_e4m3(17), 16);  // between 16 and 18
  EXPECT_EQ(nearest_e4m3(19), 20);
  EXPECT_EQ(nearest_e4m3(0x1p-10), 0);
  EXPECT_EQ(nearest_e4m3(-0x3p-10), -0x4p-10);
}

TEST(Fp8Operand, ABoundSaturates) {
  Doubles x(1, 64);
  x(0, 0) = 1000, x(0, 1) = -700, x(0, 2) = 448, x(0, 3) = 30, x(0, 4) = 450;
  const Doubles y = through_the_identity(x, 448);
  for (const auto& [i, expected] : {std::pair{0, 448}, {1, -448}, {2, 448}, {3, 30}, {4, 448}})
    EXPECT_EQ(y(0, i), expected);
}

TEST(Fp8Operand, ScalesAreOfTheLargestMagnitude) {
  const auto scale = [](float largest, float bound = 0) { return fp8_scale(magnitude_bits(largest), bound); };
  EXPECT_EQ(scale(448), 1);
  EXPECT_EQ(scale(-3), 3.0f / 448);
  EXPECT_EQ(scale(0), 1);
  EXPECT_EQ(scale(1e-37f), 1);  // a scale that were no normal number
  EXPECT_EQ(scale(1200, 448), 1);
  EXPECT_EQ(scale(1200, 1200), 1200.0f / 448);
  EXPECT_TRUE(std::isinf(scale(INFINITY, 448)));
  EXPECT_TRUE(std::isnan(scale(NAN, 448)));
  EXPECT_TRUE(std::isnan(float_of_e4m3(fp8_code(INFINITY, INFINITY))));
}

TEST(Fp8Products, OfWhichShapes) {
  const auto takes = [](ScaleBlocks blocks, int64_t in, int64_t col, std::vector<Scaling::Part> parts) {
    WeightShape shape{.in = in, .format = Format::fp8};
    shape.scaling = {blocks, false, Rounding::none, col, col + in, parts};
    return multiplies_in_fp8(shape);
  };
  EXPECT_TRUE(takes(kMadeBlocks, 576, 0, {{0, 576}, {0, 192}}));
  EXPECT_TRUE(takes({1, 0}, 48, 16, {{8, 32}}));
  EXPECT_TRUE(takes({0, 0}, 48, 16, {{8, 32}}));
  EXPECT_FALSE(takes(kMadeBlocks, 576, 64, {{0, 576}}));
  EXPECT_FALSE(takes(kMadeBlocks, 576, 0, {{0, 576}, {64, 128}}));
  EXPECT_FALSE(takes(kMadeBlocks, 576, 0, {{0, 72}}));
  EXPECT_FALSE(takes({1, 0}, 40, 0, {{0, 32}}));
  EXPECT_FALSE(takes({64, 64}, 64, 0, {{0, 64}}));
  EXPECT_FALSE(takes({1, 128}, 128, 0, {{0, 64}}));
  EXPECT_FALSE(multiplies_in_fp8({.out = 64, .in = 64, .format = Format::nf4}));
}

}  // namespace
}  // namespace drover
