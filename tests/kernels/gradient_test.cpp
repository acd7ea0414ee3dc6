// The reference backward ops against central differences of the reference forward ops, in double; and proof that the
// check can fail.
#include <gtest/gtest.h>

#include "tests/reference/compare.h"

namespace drover {
namespace {

using namespace reference;

constexpr double kClose = 1e-7;

Doubles drawn64(uint64_t seed, int64_t rows, int64_t cols) { return drawn_matrix(seed, rows, cols, DType::f64); }

// The same gradient with one term's sign turned: what a wrong backward looks like.
Doubles minus(Doubles x) {
  for (double& v : x.values) v = -v;
  return x;
}

TEST(ReferenceGradient, LinearDx) {
  const Doubles x = drawn64(1, 3, 5), w = drawn64(2, 7, 5), a = drawn64(3, 2, 5), b = drawn64(4, 7, 2),
                dy = drawn64(5, 3, 7);
  const auto forward = [&](const Doubles& at) {  // y = x·wᵀ + (x·aᵀ)·bᵀ
    const Doubles u = product(Trans::no, Trans::yes, 1, at, a, 0, Doubles(3, 2));
    return reference::linear<double>(at, w, {{u, b, 0}}, Doubles(3, 7));
  };
  const Doubles v = product(Trans::no, Trans::no, 1, dy, b, 0, Doubles(3, 2));
  EXPECT_LT(gradient_error(forward, x, dy, reference::linear_dx(dy, w, v, a)), kClose);
  EXPECT_GT(gradient_error(forward, x, dy, reference::linear_dx(dy, w, minus(v), a)), 1e-2);
}

TEST(ReferenceGradient, RmsNorm) {
  const double eps = 1e-2;
  const Doubles x = drawn64(1, 3, 7), w = drawn64(2, 7, 1), dy = drawn64(3, 3, 7);
  const auto forward = [&](const Doubles& at) { return rms_norm(at, w, inverse_rms(at, eps)); };
  const Doubles right = rms_norm_backward(dy, x, inverse_rms(x, eps), w, Doubles(3, 7));
  EXPECT_LT(gradient_error(forward, x, dy, right), kClose);
  // The second term's sign broken: g·rstd + x̂·mean = 2·g·rstd - right.
  Doubles broken = right;
  const Doubles rstd = inverse_rms(x, eps);
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t i = 0; i < 7; ++i) broken(t, i) = 2 * dy(t, i) * w(i, 0) * rstd(t, 0) - right(t, i);
  }
  EXPECT_GT(gradient_error(forward, x, dy, broken), 1e-2);
}

TEST(ReferenceGradient, Rope) {
  const Doubles x = drawn64(1, 3, 12), dy = drawn64(2, 3, 12);
  Doubles cosine(9, 3), sine(9, 3);
  for (int64_t p = 0; p < 9; ++p) {
    for (int64_t i = 0; i < 3; ++i) {
      cosine(p, i) = std::cos(static_cast<double>(p) * std::pow(0.3, static_cast<double>(i)));
      sine(p, i) = std::sin(static_cast<double>(p) * std::pow(0.3, static_cast<double>(i)));
    }
  }
  const std::vector<int32_t> positions{0, 5, 8};
  const auto forward = [&](const Doubles& at) { return rope(at, positions, cosine, sine, false); };
  EXPECT_LT(gradient_error(forward, x, dy, rope(dy, positions, cosine, sine, true)), kClose);
  EXPECT_GT(gradient_error(forward, x, dy, rope(dy, positions, cosine, sine, false)), 1e-2);
}

TEST(ReferenceGradient, Swiglu) {
  const Doubles gate_up = drawn64(1, 3, 10), dy = drawn64(2, 3, 5);
  const auto forward = [](const Doubles& at) { return swiglu(at); };
  const Doubles right = swiglu_backward(dy, gate_up);
  EXPECT_LT(gradient_error(forward, gate_up, dy, right), kClose);
  Doubles broken = right;
  for (int64_t t = 0; t < 3; ++t) broken(t, 7) = -broken(t, 7);
  EXPECT_GT(gradient_error(forward, gate_up, dy, broken), 1e-2);
}

TEST(ReferenceGradient, Attention) {
  const AttentionShape shape{6, 2, 4, 0.5f};
  const Segment segments[] = {{.q0 = 0, .nq = 4, .k0 = 0, .nk = 5, .offset = 1},
                              {.q0 = 4, .nq = 3, .k0 = 5, .nk = 3, .offset = 0}};
  const Doubles q = drawn64(1, 7, 24), k = drawn64(2, 8, 8), v = drawn64(3, 8, 8), d_o = drawn64(4, 7, 24);
  const Doubles o = attention(q, k, v, 0, segments, shape).o;
  const auto right = attention_backward(q, k, v, segments, shape, o, d_o);
  const auto of_q = [&](const Doubles& at) { return attention(at, k, v, 0, segments, shape).o; };
  const auto of_k = [&](const Doubles& at) { return attention(q, at, v, 0, segments, shape).o; };
  const auto of_v = [&](const Doubles& at) { return attention(q, k, at, 0, segments, shape).o; };
  EXPECT_LT(gradient_error(of_q, q, d_o, right.dq), kClose);
  EXPECT_LT(gradient_error(of_k, k, d_o, right.dk), kClose);
  EXPECT_LT(gradient_error(of_v, v, d_o, right.dv), kClose);
  // delta's sign broken
  const auto broken = attention_backward(q, k, v, segments, shape, minus(o), d_o);
  EXPECT_GT(gradient_error(of_q, q, d_o, broken.dq), 1e-2);
  EXPECT_GT(gradient_error(of_k, k, d_o, broken.dk), 1e-2);
  // A mask one key too wide
  Segment wide[] = {segments[0], segments[1]};
  wide[1].offset = 1;
  EXPECT_GT(gradient_error(of_v, v, d_o, attention_backward(q, k, v, wide, shape, o, d_o).dv), 1e-2);
}

TEST(ReferenceGradient, CrossEntropy) {
  const Doubles logits = drawn64(1, 3, 9);
  const std::vector<int32_t> labels{0, 4, 6};
  const int64_t valid = 7;
  const auto forward = [&](const Doubles& at) {
    Doubles loss = log_sum_exp(at, valid);
    for (int64_t r = 0; r < 3; ++r) loss(r, 0) -= at(r, labels[static_cast<size_t>(r)]);
    return loss;
  };
  Doubles ones(3, 1);
  for (double& x : ones.values) x = 1;
  const Doubles lse = log_sum_exp(logits, valid);
  EXPECT_LT(gradient_error(forward, logits, ones, cross_entropy_backward(logits, labels, 0, valid, lse)), kClose);
  EXPECT_GT(gradient_error(forward, logits, ones, cross_entropy_backward(logits, labels, 1, valid, lse)), 1e-2);
}

TEST(Comparison, FailsOnASignAPlaceAndANaN) {
  const Doubles truth = drawn_matrix(1, 20, 20, DType::f32);
  const Matrix<Bounded> expected = as<Bounded>(truth);
  EXPECT_TRUE(close(truth, expected, DType::f32));
  Doubles flipped = truth, moved = truth, poisoned = truth, rounded_twice = truth;
  flipped(7, 7) = -flipped(7, 7);
  std::swap(moved(3, 4), moved(4, 3));
  poisoned(19, 19) = std::nan("");
  for (double& x : rounded_twice.values) x = rounded(x, DType::bf16);
  for (const DType type : {DType::f32, DType::bf16}) {
    EXPECT_FALSE(close(flipped, expected, type));
    EXPECT_FALSE(close(moved, expected, type));
    EXPECT_FALSE(close(poisoned, expected, type));
  }
  EXPECT_TRUE(close(rounded_twice, expected, DType::bf16));
  EXPECT_FALSE(close(rounded_twice, expected, DType::f32)) << "bf16 precision passes for f32";
}

TEST(Comparison, SeesWritesOutsideATensor) {
  const Held held(Doubles(3, 4), DType::f32, 2);
  EXPECT_TRUE(held.guard_intact());
  Tensor wider = held;
  wider.cols += 1;
  set(wider, 1, 4, 1);
  EXPECT_FALSE(held.guard_intact());
}

// The carried estimate grows like the root of a sum's length and covers cancellation.
TEST(Comparison, CarriedErrorsFollowTheArithmetic) {
  Bounded sum(0);
  for (int i = 0; i < 10000; ++i) sum += Bounded(i % 2 == 0 ? 1 : -1);
  EXPECT_EQ(sum.value, 0);
  EXPECT_GT(sum.error, 50);
  EXPECT_LT(sum.error, 150);
  EXPECT_GT(exp(Bounded(100.0, 1000.0)).error / std::exp(100.0), 1000);
}

}  // namespace
}  // namespace drover
