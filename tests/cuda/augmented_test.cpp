// Low-rank terms that ride in the product of their linear, in strips beside its operands.
#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "tests/cuda/matmul_cases.h"

namespace drover::cuda {
namespace {

static_assert(low_rank_strip(0) == 0 && low_rank_strip(1) == 64 && low_rank_strip(64) == 64 && low_rank_strip(65) == 128);


TEST(Augmented, ForwardIsOneProductAndEqualsTheTermsApart) {
  CudaBackend backend({});
  for (const DType type : kFloats) {
    for (const DType out : kFloats) {
      for (const int64_t rows : {1, 3, 40}) {
        for (const bool accumulate : {false, true}) {
          SCOPED_TRACE(fmt::format("{} to {} T {} {}", name_of(type), name_of(out), rows, accumulate));
          const Widened at(rows, type);
          const Doubles old = drawn_matrix(9, rows, Widened::kAllOut, out);
          const Held fused(old, out, 3), apart(old, out, 3);
          const auto& path = backend.linear_paths().forward;
          const int64_t before = path.count({24, 48}) != 0 ? path.at({24, 48}).fused : 0;
          backend.linear(at.input(), at.weight(), at.terms(), accumulate, fused);
          EXPECT_EQ(path.at({24, 48}).fused, before + 1);
          backend.linear(at.input(), at.weight(), at.terms_apart(), accumulate, apart);
          EXPECT_EQ(path.at({24, 48}).fused, before + 1);
          const auto expected = at.expected(accumulate ? old : Doubles(rows, Widened::kAllOut));
          EXPECT_TRUE(as_expected(fused, expected));
          EXPECT_TRUE(as_expected(apart, expected));
        }
      }
    }
  }
}

TEST(Augmented, BackwardIsOneProductAndEqualsTheTermsApart) {
  CudaBackend backend({});
  for (const DType type : kFloats) {
    for (const DType out : kFloats) {
      for (const int64_t rows : {1, 40}) {
        SCOPED_TRACE(fmt::format("{} to {} T {}", name_of(type), name_of(out), rows));
        const Widened at(rows, type);
        const Held fused(rows, Widened::kIn, out, 3), apart(rows, Widened::kIn, out, 3);
        const auto& path = backend.linear_paths().backward;
        const int64_t before = path.count({24, 48}) != 0 ? path.at({24, 48}).fused : 0;
        backend.linear_dx(at.gradient(), at.weight(), at.v(), at.a(), fused);
        EXPECT_EQ(path.at({24, 48}).fused, before + 1);
        backend.linear_dx(at.gradient(), at.weight(), at.apart_v, at.apart_a, apart);
        EXPECT_EQ(path.at({24, 48}).fused, before + 1);
        EXPECT_TRUE(as_expected(fused, at.expected_dx()));
        EXPECT_TRUE(as_expected(apart, at.expected_dx()));
      }
    }
  }
}

TEST(Augmented, OnlyWhatLiesInItsPlaceIsTaken) {
  const Widened at(5, DType::bf16);
  const auto forward = [&](const std::vector<LowRank>& terms) { return augmented_forward(at.input(), at.weight(), terms).possible; };
  const Augmented wide = augmented_forward(at.input(), at.weight(), at.terms());
  ASSERT_TRUE(wide.possible);
  EXPECT_EQ(wide.x.cols, 24 + Widened::kStrip);
  EXPECT_EQ(wide.w.cols, 24 + Widened::kStrip);
  EXPECT_EQ(wide.w.rows, 48);
  std::vector<LowRank> terms = at.terms();
  EXPECT_TRUE(forward({terms[0]}));
  EXPECT_FALSE(forward({terms[1]}));            // a gap in the rank columns
  EXPECT_FALSE(forward({terms[1], terms[0]}));  // another order
  EXPECT_FALSE(forward(at.terms_apart()));
  EXPECT_FALSE(forward({terms[0], at.terms_apart()[1]}));
  terms[1].column += 1;  // b of other outputs
  EXPECT_FALSE(forward(terms));
  terms = at.terms();
  terms[1].b.dtype = DType::f32;
  EXPECT_FALSE(forward(terms));
  terms = at.terms();
  terms[0].u.pitch += 1;
  EXPECT_FALSE(forward(terms));
  Tensor narrow = at.input();  // a buffer without room for what rounds the rank up
  narrow.pitch = 24 + 9;
  std::vector<LowRank> tight = at.terms();
  for (LowRank& term : tight) term.u.pitch = narrow.pitch;
  EXPECT_FALSE(augmented_forward(narrow, at.weight(), tight).possible);

  const Augmented plain = augmented_forward(at.input(), at.weight(), {});
  EXPECT_TRUE(plain.possible && plain.x.cols == 24 && plain.w.cols == 24);

  const auto backward = [&](Tensor v, Tensor a) { return augmented_backward(at.gradient(), at.weight(), v, a); };
  EXPECT_EQ(backward(at.v(), at.a()).x.cols, 48 + Widened::kStrip);
  EXPECT_EQ(backward(at.v(), at.a()).w.rows, 48 + Widened::kStrip);
  EXPECT_FALSE(backward(at.apart_v, at.a()).possible);
  EXPECT_FALSE(backward(at.v(), at.apart_a).possible);
  EXPECT_FALSE(backward(at.v().columns(1, 8), at.a().rows_from(1, 8)).possible);
  EXPECT_FALSE(backward(at.v().columns(0, 8), at.a()).possible);
  EXPECT_TRUE(backward({}, {}).possible);
  EXPECT_EQ(backward({}, {}).w.rows, 48);
}

}  // namespace
}  // namespace drover::cuda
