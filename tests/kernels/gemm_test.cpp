// Matrix products against double, for every pair of dtypes, at odd sizes, pitched and in place of older values.
#include <gtest/gtest.h>

#include <array>
#include <deque>

#include "kernels/backend.h"
#include "kernels/base/error.h"
#include "tests/reference/compare.h"

namespace drover {
namespace {

using namespace reference;

Matrix<Bounded> bounded(const Held& held) { return as<Bounded>(held.values()); }

constexpr DType kFloats[] = {DType::f32, DType::bf16};

TEST(Gemm, EveryOrientationAndDtype) {
  const auto backend = backend_under_test();
  const int64_t sizes[][3] = {{1, 1, 1}, {3, 17, 65}, {63, 129, 5}, {65, 1, 300}, {1, 130, 33}};
  for (const auto& [m, n, k] : sizes) {
    for (int which = 0; which < 32; ++which) {
      const Trans ta = which & 1 ? Trans::yes : Trans::no, tb = which & 2 ? Trans::yes : Trans::no;
      const DType da = kFloats[which >> 2 & 1], db = kFloats[which >> 3 & 1], dc = kFloats[which >> 4 & 1];
      SCOPED_TRACE(fmt::format("{}x{}x{} case {}", m, n, k, which));
      const Held a(ta == Trans::no ? drawn_matrix(1, m, k, da) : drawn_matrix(1, k, m, da), da, 3);
      const Held b(tb == Trans::no ? drawn_matrix(2, k, n, db) : drawn_matrix(2, n, k, db), db, 5);
      for (const double beta : {0.0, 1.0}) {
        const Held c(drawn_matrix(3, m, n, dc), dc, 2);
        const auto expected = product(ta, tb, 0.5, bounded(a), bounded(b), beta, bounded(c));
        backend->gemm(ta, tb, 0.5f, a, b, static_cast<float>(beta), c);
        EXPECT_TRUE(as_expected(c, expected)) << "beta " << beta;
      }
    }
  }
}

TEST(Gemm, BetaZeroForgetsNaN) {
  const auto backend = backend_under_test();
  for (const DType type : kFloats) {
    Doubles poison(3, 5);
    for (double& x : poison.values) x = std::nan("");
    const Held a(drawn_matrix(1, 3, 4, type), type), b(drawn_matrix(2, 4, 5, type), type), c(poison, type);
    backend->gemm(Trans::no, Trans::no, 1, a, b, 0, c);
    EXPECT_TRUE(
        as_expected(c, product(Trans::no, Trans::no, 1, bounded(a), bounded(b), 0, as<Bounded>(Doubles(3, 5)))));
  }
}

// scale·x·aᵀ
Matrix<Bounded> low_rank_u(Tensor x, const LowRank& term) {
  return product(Trans::no, Trans::yes, term.scale, as<Bounded>(values_of(x)), as<Bounded>(values_of(term.a)), 0,
                 Matrix<Bounded>(x.rows, term.a.rows));
}

struct LinearCase {
  int64_t t, in, out, rank;
};

TEST(Linear, LowRankTermsAndOneRounding) {
  const auto backend = backend_under_test();
  const LinearCase cases[] = {{1, 1, 1, 1},   {1, 129, 65, 3}, {3, 65, 17, 8},    {5, 33, 63, 1},
                              {8, 70, 40, 4}, {9, 70, 40, 4},  {130, 63, 129, 16}};
  for (const LinearCase& c : cases) {
    for (int which = 0; which < 32; ++which) {
      const DType dx = kFloats[which & 1], dw = kFloats[which >> 1 & 1], dy = kFloats[which >> 2 & 1];
      const bool accumulate = which & 8;
      const SumOrder order = which & 16 ? SumOrder::by_row : SumOrder::fastest;
      SCOPED_TRACE(fmt::format("T {} in {} out {} rank {} case {}", c.t, c.in, c.out, c.rank, which));
      const Held x(drawn_matrix(1, c.t, c.in, dx), dx, 3), w(drawn_matrix(2, c.out, c.in, dw), dw, 1),
          y(drawn_matrix(3, c.t, c.out, dy), dy, 7);
      // Two members side by side with a gap between them, as a fused linear with one target unadapted has.
      const int64_t first = (c.out + 2) / 3, second = c.out - 2 * first;
      const int64_t rank = c.rank + (second > 0 ? 2 * c.rank : 0);
      const Held a(drawn_matrix(4, rank, c.in, dw), dw, 2), u(c.t, rank, dx, 2);
      const Held b1(drawn_matrix(5, first, c.rank, DType::f32), DType::f32);
      std::optional<Held> b2;
      std::vector<LowRank> terms{{.a = Tensor(a).rows_from(0, c.rank), .b = b1, .scale = 0.5f}};
      if (second > 0) {
        b2.emplace(drawn_matrix(7, second, 2 * c.rank, dw), dw, 1);
        terms.push_back({.a = Tensor(a).rows_from(c.rank, 2 * c.rank),
                         .b = *b2,
                         .scale = which & 1 ? 0.5f : 2.0f,  // of one run with the first, or not
                         .column = c.out - second});
      }
      const auto old = accumulate ? bounded(y) : Matrix<Bounded>(c.t, c.out);
      backend->linear(x, DenseWeight(w), {terms, u, {}}, accumulate, y, order);
      EXPECT_TRUE(u.guard_intact());
      std::vector<LowRankTerm<Bounded>> expected_terms;
      int64_t column = 0;
      for (const LowRank& term : terms) {
        const Tensor part = Tensor(u).columns(column, term.a.rows);
        EXPECT_TRUE(close(values_of(part), low_rank_u(x, term), dx));
        expected_terms.push_back({as<Bounded>(values_of(part)), as<Bounded>(values_of(term.b)), term.column});
        column += term.a.rows;
      }
      EXPECT_TRUE(as_expected(y, reference::linear(bounded(x), bounded(w), expected_terms, old)));
    }
  }
}

TEST(Linear, BackwardWithAndWithoutLowRank) {
  const auto backend = backend_under_test();
  const LinearCase cases[] = {{1, 1, 1, 1}, {3, 65, 17, 8}, {130, 63, 129, 16}};
  for (const LinearCase& c : cases) {
    for (int which = 0; which < 16; ++which) {
      const DType ddy = kFloats[which & 1], dw = kFloats[which >> 1 & 1], ddx = kFloats[which >> 2 & 1];
      SCOPED_TRACE(fmt::format("T {} in {} out {} rank {} case {}", c.t, c.in, c.out, c.rank, which));
      const Held dy(drawn_matrix(1, c.t, c.out, ddy), ddy, 3), w(drawn_matrix(2, c.out, c.in, dw), dw, 1),
          dx(drawn_matrix(3, c.t, c.in, ddx), ddx, 7);
      const Held v(drawn_matrix(4, c.t, c.rank, ddy), ddy, 2), a(drawn_matrix(5, c.rank, c.in, dw), dw, 4);
      const bool low = which & 8;
      const auto expected = reference::linear_dx(bounded(dy), bounded(w), low ? bounded(v) : Matrix<Bounded>(),
                                                 low ? bounded(a) : Matrix<Bounded>());
      backend->linear_dx(dy, DenseWeight(w), low ? Tensor(v) : Tensor{}, low ? Tensor(a) : Tensor{}, dx);
      EXPECT_TRUE(as_expected(dx, expected));
    }
  }
}

struct LowRankCase {
  int64_t t;
  std::vector<std::array<int64_t, 3>> members;  // columns left out before it, its columns, its rank
  int64_t margin;                               // columns of v
};

// v next to dy, where its columns are a strip of the same memory. A whole step of a tiled kernel and pieces of one,
// members of unequal widths and ranks, gaps between them, ranks and widths that no tile takes.
TEST(Linear, LowRankPartOfTheBackward) {
  const auto backend = backend_under_test();
  const LowRankCase cases[] = {{1, {{0, 8, 8}}, 8},
                               {1, {{0, 1, 1}}, 4},
                               {64, {{0, 128, 16}}, 64},
                               {65, {{0, 136, 16}, {0, 24, 16}, {8, 24, 16}}, 64},
                               {130, {{8, 1032, 8}}, 64},
                               {70, {{0, 200, 16}}, 64},
                               {300, {{0, 40, 16}, {0, 520, 8}}, 24},
                               {129, {{0, 264, 32}, {16, 8, 24}}, 64},
                               {67, {{0, 40, 48}}, 64},
                               {33, {{3, 35, 8}, {0, 17, 5}}, 64}};
  for (const LowRankCase& c : cases) {
    for (int which = 0; which < 4; ++which) {
      const DType type = kFloats[which & 1], of_u = kFloats[which >> 1];
      SCOPED_TRACE(fmt::format("T {} members {} case {}", c.t, c.members.size(), which));
      int64_t out = 0, rank = 0;
      for (const auto& [gap, columns, r] : c.members) out += gap + columns, rank += r;
      out = (out + 7) / 8 * 8;
      Doubles drawn = drawn_matrix(1, c.t, out + c.margin, type);
      for (int64_t i = 0; i < c.t; ++i) {
        for (int64_t j = out; j < out + c.margin; ++j) drawn(i, j) = std::nan("");  // it is written, never read
      }
      const Held whole(drawn, type, 8);
      const Tensor dy = Tensor(whole).columns(0, out), v = Tensor(whole).columns(out, c.margin);
      const Matrix<Bounded> dy_before = as<Bounded>(values_of(dy));
      const Held u(drawn_matrix(2, c.t, rank, of_u), of_u, (8 - rank % 8) % 8);
      std::deque<Held> b, grad_b;
      std::vector<LowRankGradient> terms;
      std::vector<Matrix<Bounded>> expected_gradients;
      Matrix<Bounded> expected_v(c.t, c.margin);
      int64_t column = 0, rank_column = 0;
      for (const auto& [gap, columns, r] : c.members) {
        column += gap;
        const float scale = 0.5f + static_cast<float>(rank_column);
        b.emplace_back(drawn_matrix(3 + column, columns, r, type), type, 8 + (8 - r % 8) % 8);
        grad_b.emplace_back(drawn_matrix(4 + column, columns, r, DType::f32), DType::f32, (4 - r % 4) % 4);
        terms.push_back({Tensor(u).columns(rank_column, r), b.back(), grad_b.back(), scale, column});
        const auto dy_m = as<Bounded>(values_of(dy.columns(column, columns)));
        const auto v_m = product(Trans::no, Trans::no, scale, dy_m, bounded(b.back()), 0, Matrix<Bounded>(c.t, r));
        for (int64_t i = 0; i < c.t; ++i) {
          for (int64_t j = 0; j < r; ++j) expected_v(i, rank_column + j) = v_m(i, j);
        }
        expected_gradients.push_back(
            product(Trans::yes, Trans::no, 1, dy_m, as<Bounded>(values_of(terms.back().u)), 1, bounded(grad_b.back())));
        column += columns;
        rank_column += r;
      }
      backend->low_rank_backward(dy, terms, v);
      EXPECT_TRUE(close(values_of(v), expected_v, type));
      EXPECT_TRUE(close(values_of(dy), dy_before, type)) << "dy is kept";
      EXPECT_TRUE(whole.guard_intact());
      for (size_t m = 0; m < terms.size(); ++m)
        EXPECT_TRUE(as_expected(grad_b[m], expected_gradients[m])) << "member " << m;
    }
  }
}

// A tensor core cuts off what lies below its accumulator's last bit, after every 16 products: up to 2u of the sum so
// far, always towards zero. Over k products these add up to u·k/8 of the result, not to √k as roundings do; products
// are also cut when they are aligned to each other, so the bound is u·k. One product that is missing or taken twice is
// about 1/√k of the result: at k = 8300 still 20 times the bound.
Matrix<Bounded> cut_sums(Matrix<Bounded> expected, int64_t k) {
  for (Bounded& x : expected.values)
    x.error = root(x.error, static_cast<double>(k) * std::abs(x.value) / 3);  // close() takes errors three times
  return expected;
}

// Sizes at which rows, outputs and sums are each cut into several panels: spot rows against double.
TEST(Linear, PanelsJoinWithoutSeams) {
  const auto backend = backend_under_test();
  const LinearCase cases[] = {{2061, 40, 2100, 3}, {70, 8300, 600, 3}, {600, 8300, 70, 3}};
  for (const LinearCase& c : cases) {
    const Held x(drawn_matrix(1, c.t, c.in, DType::bf16), DType::bf16),
        w(drawn_matrix(2, c.out, c.in, DType::bf16), DType::bf16, 1),
        a(drawn_matrix(3, c.rank, c.in, DType::bf16), DType::bf16), u(c.t, c.rank, DType::bf16),
        b(drawn_matrix(4, c.out - 2, c.rank, DType::bf16), DType::bf16);
    const LowRank term{.a = a, .b = b, .column = 1};
    for (const DType type : kFloats) {
      const Held y(c.t, c.out, type, 3), dx(c.t, c.in, type, 3);
      backend->linear(x, DenseWeight(w), {{&term, 1}, u, {}}, false, y);
      backend->linear_dx(y, DenseWeight(w), {}, {}, dx);
      const auto one_row = [](const Held& from, int64_t row) {
        return as<Bounded>(values_of(Tensor(from).rows_from(row, 1)));
      };
      for (const int64_t row : {int64_t{0}, c.t / 2, c.t - 1}) {
        SCOPED_TRACE(fmt::format("T {} in {} out {} {} row {}", c.t, c.in, c.out, name_of(type), row));
        const auto expected = reference::linear<Bounded>(one_row(x, row), bounded(w),
                                                         {{one_row(u, row), bounded(b), 1}}, Matrix<Bounded>(1, c.out));
        EXPECT_TRUE(close(values_of(Tensor(y).rows_from(row, 1)), cut_sums(expected, c.in), type));
        const auto back = reference::linear_dx(one_row(y, row), bounded(w), Matrix<Bounded>(), Matrix<Bounded>());
        EXPECT_TRUE(close(values_of(Tensor(dx).rows_from(row, 1)), cut_sums(back, c.out), type));
      }
      EXPECT_TRUE(y.guard_intact() && dx.guard_intact());
    }
  }
}

// Rounding twice (the base product, then the sum with its low-rank term) would change about a third of the results; two
// orders of an fp32 sum change one in hundreds.
TEST(Linear, RoundsOnce) {
  const auto backend = backend_under_test();
  for (const int64_t t : {2, 40}) {
    const Held x(drawn_matrix(1, t, 64, DType::bf16), DType::bf16),
        w(drawn_matrix(2, 96, 64, DType::bf16), DType::bf16);
    const Held a(drawn_matrix(6, 8, 64, DType::bf16), DType::bf16), b(drawn_matrix(4, 96, 8, DType::bf16), DType::bf16);
    const Held u(t, 8, DType::bf16), v(drawn_matrix(3, t, 8, DType::bf16), DType::bf16);
    const Doubles old = drawn_matrix(5, t, 96, DType::bf16);
    const LowRank term{.a = a, .b = b};
    const Held wide(old, DType::f32), narrow(old, DType::bf16), dx(t, 64, DType::bf16), dx_wide(t, 64, DType::f32),
        dy(old, DType::bf16);
    backend->linear(x, DenseWeight(w), {{&term, 1}, u, {}}, true, wide);
    backend->linear(x, DenseWeight(w), {{&term, 1}, u, {}}, true, narrow);
    backend->linear_dx(dy, DenseWeight(w), v, a, dx_wide);
    backend->linear_dx(dy, DenseWeight(w), v, a, dx);
    for (const auto& [exact, got] : {std::pair{&wide, &narrow}, std::pair{&dx_wide, &dx}}) {
      const Doubles truth = exact->values(), values = got->values();
      size_t different = 0;
      for (size_t i = 0; i < values.values.size(); ++i)
        different += values.values[i] != rounded(truth.values[i], DType::bf16);
      EXPECT_LE(different, values.values.size() / 50);
    }
  }
}

// A token's result does not depend on how many others are decoded with it.
TEST(Linear, DecodingIsTheSameInAnyBatch) {
  const auto backend = backend_under_test();
  for (const DType type : kFloats) {
    Doubles picks(5, 75);  // u is five values of x, in whatever order a product sums
    for (int64_t i = 0; i < 5; ++i) picks(i, 7 * i) = 1;
    const Held x(drawn_matrix(1, 8, 75, type), type), w(drawn_matrix(2, 33, 75, type), type), a(picks, type),
        b(drawn_matrix(4, 33, 5, type), type), u(8, 5, type), all(8, 33, type);
    const LowRank term{.a = a, .b = b};
    backend->linear(x, DenseWeight(w), {{&term, 1}, u, {}}, false, all, SumOrder::by_row);
    for (int64_t row = 0; row < 8; ++row) {
      const Held alone(1, 33, type), its_u(1, 5, type);
      backend->linear(Tensor(x).rows_from(row, 1), DenseWeight(w), {{&term, 1}, its_u, {}}, false, alone,
                      SumOrder::by_row);
      EXPECT_TRUE(exactly(alone, values_of(Tensor(all).rows_from(row, 1)))) << row;
    }
  }
}

// Rows of several adapters, of unlike ranks and members, and of none, in one product: each as it is by itself.
TEST(Linear, PartsAreAsTheyAreByThemselves) {
  const auto backend = backend_under_test();
  constexpr int64_t kIn = 75, kOut = 130, kRank = 11;
  for (const DType type : kFloats) {
    const Held w(drawn_matrix(2, kOut, kIn, type), type), a(drawn_matrix(3, 2 * kRank, kIn, type), type),
        b(drawn_matrix(4, kOut, 2 * kRank, type), type);
    const Tensor a0 = Tensor(a).rows_from(0, kRank), a1 = Tensor(a).rows_from(kRank, 3),
                 b0 = Tensor(b).rows_from(0, 100).columns(0, kRank), b1 = Tensor(b).rows_from(0, 30).columns(kRank, 3);
    const std::vector<LowRank> kinds[] = {
        {{.a = a0, .b = b0, .scale = 0.5f}, {.a = a1, .b = b1, .scale = 2, .column = 100}},
        {},
        {{.a = a1, .b = b1, .scale = 1, .column = 64}}};
    for (const std::vector<int64_t>& rows : {std::vector<int64_t>{1, 2, 3}, {4, 1, 70}, {90, 60, 8}, {300, 300, 1}}) {
      for (const bool accumulate : {false, true}) {
        const int64_t t = rows[0] + rows[1] + rows[2];
        const Held x(drawn_matrix(1, t, kIn, type), type), u(t, 14, type), its_u(t, 14, type);
        const Doubles old = drawn_matrix(5, t, kOut, type);
        const Held together(old, type, 3), apart(old, type, 3);
        std::vector<LinearPart> parts;
        int64_t begin = 0;
        for (size_t i = 0; i < 3; ++i) {
          int64_t rank = 0;
          for (const LowRank& term : kinds[i]) rank += term.a.rows;
          const auto columns = [&](const Held& whole) {
            return Tensor(whole).rows_from(begin, rows[i]).columns(0, rank);
          };
          parts.push_back({rows[i], {kinds[i], columns(u), {}}});
          backend->linear(Tensor(x).rows_from(begin, rows[i]), DenseWeight(w), {kinds[i], columns(its_u), {}},
                          accumulate, Tensor(apart).rows_from(begin, rows[i]), SumOrder::by_row);
          begin += rows[i];
        }
        backend->linear_of_parts(x, DenseWeight(w), parts, accumulate, together);
        EXPECT_TRUE(together.guard_intact());
        if (t <= 8 || !backend->traits().own_memory) {  // on a GPU more rows are another product
          EXPECT_TRUE(exactly(together, values_of(apart))) << name_of(type) << " " << t;
        }
        begin = 0;
        for (const LinearPart& part : parts) {
          std::vector<LowRankTerm<Bounded>> low;
          int64_t column = 0;
          for (const LowRank& term : part.low_rank.terms) {
            const Tensor its = part.low_rank.u.columns(column, term.a.rows);
            low.push_back({as<Bounded>(values_of(its)), as<Bounded>(values_of(term.b)), term.column});
            column += term.a.rows;
          }
          Doubles before(part.rows, kOut);
          for (int64_t i = 0; accumulate && i < part.rows * kOut; ++i)
            before.values[static_cast<size_t>(i)] = old.values[static_cast<size_t>(begin * kOut + i)];
          const auto expected = reference::linear(as<Bounded>(values_of(Tensor(x).rows_from(begin, part.rows))),
                                                  as<Bounded>(w.values()), low, as<Bounded>(before));
          EXPECT_TRUE(close(values_of(Tensor(together).rows_from(begin, part.rows)), expected, type));
          begin += part.rows;
        }
      }
    }
  }
}

TEST(Linear, EmptyShapesChangeNothing) {
  const auto backend = backend_under_test();
  for (const DType type : kFloats) {
    const Held none(0, 5, type), w(drawn_matrix(1, 7, 5, type), type), y(0, 7, type);
    backend->linear(none, DenseWeight(w), {}, false, y);
    backend->linear_dx(y, DenseWeight(w), {}, {}, none);
    EXPECT_TRUE(y.guard_intact());
    EXPECT_TRUE(none.guard_intact());
  }
}

}  // namespace
}  // namespace drover
