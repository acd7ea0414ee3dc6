// Low-rank terms that ride in the product of their linear, in strips next to its operands.
#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "tests/cuda/matmul_cases.h"

namespace drover::cuda {
namespace {

static_assert(low_rank_strip(0) == 0 && low_rank_strip(1) == 64 && low_rank_strip(64) == 64 &&
              low_rank_strip(65) == 128);

TEST(Augmented, ForwardIsOneProductAndEqualsTheTermsApart) {
  CudaBackend backend({});
  for (int which = 0; which < 16; ++which) {
    const DType type = kFloats[which & 1], out = kFloats[which >> 1 & 1];
    const bool accumulate = which & 4;
    for (const int64_t rows : {1, 3, 40}) {
      SCOPED_TRACE(fmt::format("{} to {} T {} case {}", name_of(type), name_of(out), rows, which));
      Widened at(rows, type);
      if (which & 8) at.second_scale = 2;
      const Doubles old = drawn_matrix(9, rows, Widened::kAllOut, out);
      const Doubles before_y = accumulate ? old : Doubles(rows, Widened::kAllOut);
      const Held fused(old, out, 3), apart(old, out, 3);
      const Held u(rows, Widened::kAllRank, type, 5), u_apart(rows, Widened::kAllRank, type, 5);
      const auto& path = backend.linear_paths().forward;
      const int64_t before = path.count({24, 48}) != 0 ? path.at({24, 48}).fused : 0;
      backend.linear(at.input(), at.frozen(), {at.terms(), u, {}}, accumulate, fused);
      EXPECT_EQ(path.at({24, 48}).fused, before + 1);
      backend.linear(at.input(), at.frozen(), {at.terms_apart(), u_apart, {}}, accumulate, apart);
      EXPECT_EQ(path.at({24, 48}).fused, before + 1);
      EXPECT_TRUE(as_expected(u, at.expected_u()));
      EXPECT_TRUE(as_expected(u_apart, at.expected_u()));
      EXPECT_TRUE(as_expected(fused, at.expected(u, before_y)));
      EXPECT_TRUE(as_expected(apart, at.expected(u_apart, before_y)));
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
        backend.linear_dx(at.gradient(), at.frozen(), at.v(), at.a(), fused);
        EXPECT_EQ(path.at({24, 48}).fused, before + 1);
        backend.linear_dx(at.gradient(), at.frozen(), at.apart_v, at.apart_a, apart);
        EXPECT_EQ(path.at({24, 48}).fused, before + 1);
        EXPECT_TRUE(as_expected(fused, at.expected_dx()));
        EXPECT_TRUE(as_expected(apart, at.expected_dx()));
      }
    }
  }
}

TEST(Augmented, OnlyWhatLiesInItsPlaceIsTaken) {
  const Widened at(5, DType::bf16);
  const auto forward = [&](const std::vector<LowRank>& terms) {
    return augmented_forward(at.input(), at.weight(), terms).possible;
  };
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
  terms[0].a.pitch += 1;
  EXPECT_FALSE(forward(terms));
  Tensor narrow = at.input();  // a buffer without room for what rounds the rank up
  narrow.pitch = 24 + 9;
  EXPECT_FALSE(augmented_forward(narrow, at.weight(), at.terms()).possible);

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

// What a weight says of itself is what its products recognise; what it has room for is zero at first.
TEST(Augmented, AWeightsOwnRoomIsTaken) {
  CudaBackend backend({});
  Arena arena("weights", backend.memory(), 1 << 20);
  const int64_t rows = 9, in = 24, out = 48, rank = 9;
  {  // memory that was used before
    Frame frame(arena);
    Widened::fill(frame.tensor(200, 100, DType::bf16), Widened::poisoned(200, 100));
  }
  const auto weight = backend.make_weight(arena, {out, in, Format::bf16, rank});
  const auto plain = backend.make_weight(arena, {out, in, Format::bf16});
  EXPECT_EQ(plain->x_pitch(), in);
  EXPECT_EQ(plain->dy_pitch(), out);
  EXPECT_TRUE(plain->room_for_a().empty() && plain->room_for_b().empty());
  EXPECT_EQ(weight->x_pitch(), in + 64);
  EXPECT_EQ(weight->dy_pitch(), out + 64);
  const Tensor a = weight->room_for_a(), b = weight->room_for_b();
  EXPECT_TRUE(a.rows == rank && a.cols == in && b.rows == out && b.cols == rank);
  for (const Tensor room : {a, b}) EXPECT_EQ(values_of(room).values, Doubles(room.rows, room.cols).values);

  const Tensor x = arena.tensor(rows, in, DType::bf16, weight->x_pitch());
  const Tensor dy = arena.tensor(rows, out, DType::bf16, weight->dy_pitch());
  const Tensor v = weight->room_for_v(dy);
  EXPECT_TRUE(v.rows == rows && v.cols == 64);
  EXPECT_TRUE(weight->room_for_v(arena.tensor(rows, out, DType::bf16)).empty());
  const LowRank term{.a = a, .b = b};
  const Tensor y = arena.tensor(rows, out, DType::bf16), dx = arena.tensor(rows, in, DType::bf16);
  backend.linear(x, *weight, {{&term, 1}, arena.tensor(rows, rank, DType::bf16), {}}, false, y);
  backend.linear_dx(dy, *weight, v.columns(0, rank), a, dx);
  EXPECT_EQ(backend.linear_paths().forward.at({in, out}).fused, 1);
  EXPECT_EQ(backend.linear_paths().backward.at({in, out}).fused, 1);
}

}  // namespace
}  // namespace drover::cuda
