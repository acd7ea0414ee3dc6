// Products with weights that are codes and scales: as exact as with the dequantised values.
#include "tests/support/quantised.h"

#include <gtest/gtest.h>

#include "tests/reference/compare.h"

namespace drover {
namespace {

using namespace reference;

constexpr DType kFloats[] = {DType::f32, DType::bf16};

Matrix<Bounded> bounded(const Held& held) { return as<Bounded>(held.values()); }

// The values that multiply where x is of this dtype.
Matrix<Bounded> operand(const Doubles& values, DType x) {
  Doubles narrow = values;
  if (x == DType::bf16) {
    for (double& v : narrow.values) v = static_cast<double>(static_cast<float>(bf16(static_cast<float>(v))));
  }
  return as<Bounded>(narrow);
}

// Three parts, cut where no block begins; 9 rows of it are a sum of several blocks.
QuantisedWeight small(Backend& backend, const QuantisedKind& kind) {
  return QuantisedWeight(backend, kind, {{1, 131, 15}, {2, 7, 13}, {3, 121, 9}}, {64, 192}, 150, 320);
}
QuantisedWeight wide(Backend& backend, const QuantisedKind& kind) {
  return QuantisedWeight(backend, kind, {{4, 3, 9}}, {64, 2048}, 12, 2176);
}

class QuantisedLinear : public testing::TestWithParam<QuantisedKind> {};

TEST_P(QuantisedLinear, EqualsTheProductWithItsValues) {
  const auto backend = backend_under_test();
  for (const QuantisedWeight& w : {small(*backend, GetParam()), wide(*backend, GetParam())}) {
    for (const int64_t t : {1, 3, 9, 33}) {
      for (int which = 0; which < 16; ++which) {
        const DType dx = kFloats[which & 1], dy = kFloats[which >> 1 & 1];
        const bool accumulate = which & 4;
        const SumOrder order = which & 8 ? SumOrder::by_row : SumOrder::fastest;
        SCOPED_TRACE(fmt::format("{}, T {} case {}", text_of(GetParam()), t, which));
        const Held x(drawn_matrix(1, t, w.values.cols, dx), dx, 3), y(drawn_matrix(3, t, w.values.rows, dy), dy, 7);
        const Held a(drawn_matrix(4, 5, w.values.cols, dx), dx, 2), b(drawn_matrix(5, 7, 5, dx), dx), u(t, 5, dx, 2);
        const LowRank term{.a = a, .b = b, .scale = 0.5f, .column = 2};
        const auto old = accumulate ? bounded(y) : Matrix<Bounded>(t, w.values.rows);
        backend->linear(x, *w.weight, {{&term, 1}, u, {}}, accumulate, y, order);
        const std::vector<LowRankTerm<Bounded>> terms{{bounded(u), bounded(b), 2}};
        const bool widened = order == SumOrder::by_row && backend->memory().where() == Where::host;  // to fp32
        EXPECT_TRUE(
            as_expected(y, reference::linear(bounded(x), operand(w.values, widened ? DType::f32 : dx), terms, old)));
      }
    }
  }
}

// More rows than a widened panel serves at once, with a low-rank term that is widened between them.
TEST_P(QuantisedLinear, EqualsTheProductOfManyRows) {
  const auto backend = backend_under_test();
  const QuantisedWeight w = small(*backend, GetParam());
  constexpr int64_t kRows = 2100;
  const Held x(drawn_matrix(1, kRows, w.values.cols, DType::bf16), DType::bf16), y(kRows, w.values.rows, DType::f32);
  const Held a(drawn_matrix(4, 5, w.values.cols, DType::bf16), DType::bf16),
      b(drawn_matrix(5, 7, 5, DType::bf16), DType::bf16), u(kRows, 5, DType::bf16);
  const LowRank term{.a = a, .b = b, .scale = 0.5f, .column = 2};
  backend->linear(x, *w.weight, {{&term, 1}, u, {}}, false, y);
  const std::vector<LowRankTerm<Bounded>> terms{{bounded(u), bounded(b), 2}};
  EXPECT_TRUE(as_expected(
      y, reference::linear(bounded(x), operand(w.values, DType::bf16), terms, Matrix<Bounded>(kRows, w.values.rows))));
}

TEST_P(QuantisedLinear, BackwardEqualsTheProductWithItsValues) {
  const auto backend = backend_under_test();
  for (const QuantisedWeight& w : {small(*backend, GetParam()), wide(*backend, GetParam())}) {
    for (const int64_t t : {1, 9, 33}) {
      for (int which = 0; which < 8; ++which) {
        const DType ddy = kFloats[which & 1], ddx = kFloats[which >> 1 & 1];
        SCOPED_TRACE(fmt::format("{}, T {} case {}", text_of(GetParam()), t, which));
        const bool low = which & 4;
        const Held dy(drawn_matrix(1, t, w.values.rows, ddy), ddy, 3),
            dx(drawn_matrix(3, t, w.values.cols, ddx), ddx, 7);
        const Held v(drawn_matrix(4, t, 5, ddy), ddy, 2), a(drawn_matrix(5, 5, w.values.cols, ddy), ddy, 4);
        const auto expected =
            reference::linear_dx(bounded(dy), operand(w.values, ddy), low ? bounded(v) : Matrix<Bounded>(),
                                 low ? bounded(a) : Matrix<Bounded>());
        backend->linear_dx(dy, *w.weight, low ? Tensor(v) : Tensor{}, low ? Tensor(a) : Tensor{}, dx);
        EXPECT_TRUE(as_expected(dx, expected));
      }
    }
  }
}

TEST_P(QuantisedLinear, CountsWhatItReads) {
  const auto backend = backend_under_test();
  const QuantisedWeight w = small(*backend, GetParam());
  const int64_t values = w.weight->out() * w.weight->in();
  const int64_t codes = GetParam().format == Format::fp8 ? values : values / 2;
  EXPECT_GT(w.weight->bytes(), codes);
  EXPECT_LT(w.weight->bytes(), codes + values / 2);
}

INSTANTIATE_TEST_SUITE_P(EveryKind, QuantisedLinear, testing::ValuesIn(kQuantisedKinds), kind_name);

}  // namespace
}  // namespace drover
