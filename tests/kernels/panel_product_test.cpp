// Training's fp32 products: sums longer than what is packed at once, results of few columns, terms that begin and end
// within a band; and bits that depend on nothing but the operands of a result.
#include "kernels/cpu/panel_product.h"

#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "tests/reference/compare.h"

namespace drover {
namespace {

using namespace reference;
using cpu::PanelProduct;

constexpr DType kFloats[] = {DType::f32, DType::bf16};

Matrix<Bounded> bounded(const Held& held) { return as<Bounded>(held.values()); }

struct Size {
  int64_t m, n, k;
};
// A few columns are computed across; sums behind 768 are kept between parts of them, those into f32 behind 8192 are
// computed in parts. More rows than 512, or than a block where there are few columns, are multiplied in blocks.
constexpr Size kSizes[] = {{1, 1, 1},    {5, 50, 17},   {3, 9, 769},  {40, 3, 160}, {17, 97, 33},  {60, 33, 800},
                           {3, 7, 8200}, {130, 20, 10}, {530, 49, 3}, {2, 5, 0},    {2, 3, 16400}, {49, 250, 11}};

TEST(PanelProduct, EqualsTheReferenceInEveryOrientation) {
  PanelProduct product(3);
  int first = 0;
  for (const Size& s : kSizes) {
    for (int which = first++ % 3; which < 32; which += 3) {
      SCOPED_TRACE(fmt::format("{} × {} × {} case {}", s.m, s.n, s.k, which));
      const Trans ta = which & 1 ? Trans::yes : Trans::no, tb = which & 2 ? Trans::yes : Trans::no;
      const DType a_type = kFloats[which >> 2 & 1], b_type = kFloats[which >> 3 & 1], c_type = kFloats[which >> 4 & 1];
      const float alpha = 0.5f, beta = which & 4 ? 1.0f : 0.0f;
      const Held a(ta == Trans::no ? drawn_matrix(1, s.m, s.k, a_type) : drawn_matrix(1, s.k, s.m, a_type), a_type, 3);
      const Held b(tb == Trans::no ? drawn_matrix(2, s.k, s.n, b_type) : drawn_matrix(2, s.n, s.k, b_type), b_type, 5);
      const Held c(drawn_matrix(3, s.m, s.n, c_type), c_type, 2);
      const auto expected = reference::product(ta, tb, static_cast<double>(alpha), bounded(a), bounded(b),
                                               static_cast<double>(beta), bounded(c));
      product({ta, tb, alpha, a, b, beta, c});
      EXPECT_TRUE(as_expected(c, expected));
    }
  }
}

TEST(PanelProduct, TermsBeginAndEndAnywhere) {
  PanelProduct product(2);
  const int64_t m = 11, n = 150, k = 130;
  for (const DType type : kFloats) {
    const Held x(drawn_matrix(1, m, k, type), type, 1), w(drawn_matrix(2, n, k, type), type),
        u(drawn_matrix(3, m, 5, type), type, 2), b(drawn_matrix(4, 67, 5, type), type),
        v(drawn_matrix(5, m, 19, type), type), d(drawn_matrix(6, 40, 19, type), type, 3);
    const std::vector<LowRankTerm<Bounded>> terms{{bounded(u), bounded(b), 10}, {bounded(v), bounded(d), 77}};
    const Held y(drawn_matrix(7, m, n, type), type, 4);
    const auto expected = reference::linear(bounded(x), bounded(w), terms, bounded(y));
    const cpu::PanelTerm given[] = {{u, b, Trans::yes, 10}, {v, d, Trans::yes, 77}};
    product({Trans::no, Trans::yes, 1, x, w, 1, y, given});
    EXPECT_TRUE(as_expected(y, expected));
  }
}

// Not even a band of such sums fits the scratch: rows are packed, a few at a time.
TEST(PanelProduct, VeryLongSums) {
  PanelProduct product(2);
  const int64_t m = 18, n = 17, k = 270000;
  const Held a(drawn_matrix(1, m, k, DType::bf16), DType::bf16), b(drawn_matrix(2, n, k, DType::bf16), DType::bf16),
      c(m, n, DType::bf16);
  const auto expected =
      reference::product(Trans::no, Trans::yes, 1, bounded(a), bounded(b), 0, as<Bounded>(Doubles(m, n)));
  product({Trans::no, Trans::yes, 1, a, b, 0, c});
  EXPECT_TRUE(as_expected(c, expected));
}

// A part of a result has the bits of the whole, on any number of threads: of a whole whose rows are packed for all
// threads, and of one whose columns are, in two groups.
TEST(PanelProduct, BitsDependOnTheOperandsAlone) {
  PanelProduct one(1), many(5);
  for (const auto& [m, n, k] : {Size{75, 340, 900}, Size{600, 340, 2100}}) {
    for (const Trans tb : {Trans::no, Trans::yes}) {
      const Held a(drawn_matrix(1, m, k, DType::bf16), DType::bf16, 1),
          b(tb == Trans::yes ? drawn_matrix(2, n, k, DType::bf16) : drawn_matrix(2, k, n, DType::bf16), DType::bf16),
          whole(m, n, DType::f32), part(7, 33, DType::f32);
      one({Trans::no, tb, 1, a, b, 0, whole});
      const Doubles all = whole.values();
      for (const int64_t column : {int64_t{90}, int64_t{260}}) {
        const Tensor some_a = Tensor(a).rows_from(40, 7),
                     some_b = tb == Trans::yes ? Tensor(b).rows_from(column, 33) : Tensor(b).columns(column, 33);
        many({Trans::no, tb, 1, some_a, some_b, 0, part});
        const Doubles some = part.values();
        for (int64_t i = 0; i < 7; ++i) {
          for (int64_t j = 0; j < 33; ++j) EXPECT_EQ(some(i, j), all(40 + i, column + j)) << i << " " << j;
        }
      }
    }
  }
}

}  // namespace
}  // namespace drover
