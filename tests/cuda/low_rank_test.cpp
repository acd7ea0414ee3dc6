// The one pass for v and grad_b: what it takes, and that its pieces join. Its results are tested with the other
// products (kernels/gemm_test.cpp).
#include "kernels/cuda/low_rank.h"

#include <gtest/gtest.h>

#include "kernels/cuda/cuda_backend.h"
#include "tests/reference/compare.h"

namespace drover::cuda {
namespace {

using namespace reference;

// Two members of 264 and 72 columns, rank 16 each, v next to dy.
struct Problem {
  Held dy, u, b, grad_b;
  Problem(int64_t rows, DType type = DType::bf16)
      : dy(drawn_matrix(1, rows, 336 + 64, type), type),
        u(drawn_matrix(2, rows, 32, type), type),
        b(drawn_matrix(3, 336, 16, type), type),
        grad_b(drawn_matrix(4, 336, 16, DType::f32), DType::f32) {}
  Tensor gradient() const { return Tensor(dy).columns(0, 336); }
  Tensor v() const { return Tensor(dy).columns(336, 64); }
  std::vector<LowRankGradient> terms() const {
    const auto term = [&](int64_t first, int64_t count, int64_t rank) {
      return LowRankGradient{Tensor(u).columns(rank, 16), Tensor(b).rows_from(first, count),
                             Tensor(grad_b).rows_from(first, count), 2, first};
    };
    return {term(0, 264, 0), term(264, 72, 16)};
  }
};

TEST(LowRankBackward, ManyPiecesAreTheWhole) {
  CudaBackend backend{CudaSettings{}};
  Traffic traffic, traffic_of_few;
  LowRankBackward at_once(backend.stream(), traffic), in_pieces(backend.stream(), traffic_of_few, 90000);
  const Problem whole(1000), pieces(1000);
  at_once(whole.gradient(), whole.terms(), whole.v());
  in_pieces(pieces.gradient(), pieces.terms(), pieces.v());
  finish();
  EXPECT_GT(traffic.allocated_bytes, 4 * 90000);  // more than one piece may hold
  EXPECT_LE(traffic_of_few.allocated_bytes, in_pieces.workspace_bytes());
  EXPECT_TRUE(exactly(pieces.dy, whole.dy.values()));  // a row of v does not know of the others
  const Doubles one = whole.grad_b.values(), other = pieces.grad_b.values();
  for (size_t i = 0; i < one.values.size(); ++i)
    ASSERT_NEAR(one.values[i], other.values[i], 1e-4 * (1 + std::abs(one.values[i])));
}

TEST(LowRankBackward, TakesWholePacksOfBf16OnBoundaries) {
  const Problem p(10);
  const auto takes = [&](auto&& change) {
    Tensor dy = p.gradient(), v = p.v();
    std::vector<LowRankGradient> terms = p.terms();
    change(dy, terms, v);
    return LowRankBackward::takes(dy, terms, v);
  };
  using Terms = std::vector<LowRankGradient>;
  EXPECT_TRUE(takes([](Tensor&, Terms&, Tensor&) {}));
  EXPECT_FALSE(takes([](Tensor& dy, Terms&, Tensor&) { dy.rows = 0; }));
  EXPECT_FALSE(takes([](Tensor& dy, Terms&, Tensor&) { dy.data = static_cast<bf16*>(dy.data) + 1; }));
  EXPECT_FALSE(takes([](Tensor& dy, Terms&, Tensor&) { dy.pitch += 4; }));
  EXPECT_FALSE(takes([](Tensor&, Terms& terms, Tensor&) { terms.clear(); }));
  EXPECT_FALSE(takes([](Tensor&, Terms& terms, Tensor&) { terms.resize(5, terms[0]); }));
  EXPECT_FALSE(takes([](Tensor&, Terms& terms, Tensor&) { terms[1].b.rows = 68; }));
  EXPECT_FALSE(takes([](Tensor&, Terms& terms, Tensor&) { terms[1].column = 4; }));
  EXPECT_FALSE(takes([](Tensor&, Terms& terms, Tensor&) { terms[1].b.cols = 12; }));
  EXPECT_FALSE(takes([](Tensor&, Terms& terms, Tensor&) { terms[1].b.cols = 40; }));
  EXPECT_FALSE(takes([](Tensor&, Terms& terms, Tensor&) { terms[1].u = terms[1].u.columns(1, 16); }));
  EXPECT_FALSE(takes([](Tensor&, Terms& terms, Tensor&) { terms[1].grad_b.pitch = 18; }));
  EXPECT_FALSE(takes([](Tensor&, Terms&, Tensor& v) { v.cols = 63; }));
  EXPECT_FALSE(takes([](Tensor&, Terms&, Tensor& v) { v.data = static_cast<bf16*>(v.data) + 2; }));
  const Problem wide(10, DType::f32);
  EXPECT_FALSE(LowRankBackward::takes(wide.gradient(), wide.terms(), wide.v()));
}

}  // namespace
}  // namespace drover::cuda
