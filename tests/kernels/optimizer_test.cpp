// Sums for the gradient norm and AdamW against double.
#include <gtest/gtest.h>

#include "kernels/backend.h"
#include "tests/reference/compare.h"

namespace drover {
namespace {

using namespace reference;

TEST(Sums, SquaresAndDotAddUpInDouble) {
  for (const int64_t n : {0, 1, 17, 16384, 16385, 70001, 4200003}) {
    const Held x(drawn_matrix(1, n, 1, DType::f32, 1e3), DType::f32), y(drawn_matrix(2, n, 1, DType::f32), DType::f32);
    double squares = 3, product = 3, size = 3;
    for (int64_t i = 0; i < n; ++i) {
      squares += get(x, i, 0) * get(x, i, 0);
      product += get(x, i, 0) * get(y, i, 0);
      size += std::abs(get(x, i, 0) * get(y, i, 0));
    }
    Doubles three(1, 1);
    three(0, 0) = 3;
    std::vector<double> sums;
    for (int time = 0; time < 2; ++time) {
      const auto backend = backend_under_test();
      const Held a(three, DType::f64), b(three, DType::f64);
      backend->sum_squares(x, a);
      backend->dot(x, y, b);
      EXPECT_NEAR(get(a, 0, 0), squares, 0x1p-53 * static_cast<double>(n + 1) * squares);
      EXPECT_NEAR(get(b, 0, 0), product, 0x1p-53 * static_cast<double>(n + 1) * size);
      sums.push_back(get(a, 0, 0));
      sums.push_back(get(b, 0, 0));
    }
    EXPECT_EQ(sums[0], sums[2]) << "another sum the second time";
    EXPECT_EQ(sums[1], sums[3]) << "another sum the second time";
  }
}

TEST(Clip, FactorOfTheNorm) {
  const auto backend = backend_under_test();
  const auto factor = [&](double sum, float max_norm) {
    Doubles value(1, 1);
    value(0, 0) = sum;
    const Held s(value, DType::f64), f(1, 1, DType::f32);
    backend->clip_factor(s, max_norm, f);
    return static_cast<float>(get(f, 0, 0));
  };
  EXPECT_EQ(factor(16, 1), static_cast<float>(1 / (4 + 1e-6)));
  EXPECT_EQ(factor(0.25, 1), 1.0f);
  EXPECT_EQ(factor(0, 1), 1.0f);
  EXPECT_EQ(factor(1e6, 0), 1.0f);
  EXPECT_EQ(factor(1e6, -1), 1.0f);
}

TEST(Norm, AClipFactorThatIsNotANumberStaysSo) {
  const auto backend = backend_under_test();
  Doubles one(1, 1), infinite(1, 1);
  one(0, 0) = 1;
  infinite(0, 0) = std::numeric_limits<double>::infinity();
  const Held good(one, DType::f64), bad(infinite, DType::f64), factor(1, 1, DType::f32);
  backend->clip_factor(good, 4, factor);
  EXPECT_EQ(get(factor, 0, 0), 1);
  for (const Tensor sum : {Tensor(bad), Tensor(good)}) {
    for (const float max_norm : {4.0f, 0.0f}) {
      backend->clip_factor(sum, max_norm, factor);
      EXPECT_TRUE(std::isnan(get(factor, 0, 0)));
    }
  }
  const Held p(one, DType::f32), g(one, DType::f32), m(1, 1, DType::f32), v(1, 1, DType::f32);
  backend->adamw({.learning_rate = 0.1}, factor, g, p, m, v);
  EXPECT_EQ(get(p, 0, 0), 1);
  EXPECT_EQ(get(m, 0, 0), 0);
}

TEST(AdamW, UpdatesAsTorchDoes) {
  const auto backend = backend_under_test();
  for (const int64_t n : {0, 1, 3, 17, 4099}) {
    const AdamW settings{.learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};
    const Held p(drawn_matrix(1, n, 1, DType::f32), DType::f32), m(n, 1, DType::f32), v(n, 1, DType::f32);
    Doubles half(1, 1);
    half(0, 0) = 0.5;
    const Held factor(half, DType::f32);
    auto ps = as<Bounded>(p.values()), ms = as<Bounded>(m.values()), vs = as<Bounded>(v.values());
    for (int64_t step = 1; step <= 3; ++step) {
      AdamW now = settings;
      now.step = step;
      const Held g(drawn_matrix(10 + static_cast<uint64_t>(step), n, 1, DType::f32), DType::f32);
      for (int64_t i = 0; i < n; ++i) {
        const auto at = static_cast<size_t>(i);
        adamw(now, Bounded(0.5 * get(g, i, 0)), ps.values[at], ms.values[at], vs.values[at]);
      }
      backend->adamw(now, factor, g, p, m, v);
    }
    EXPECT_TRUE(as_expected(p, ps));
    EXPECT_TRUE(as_expected(m, ms));
    EXPECT_TRUE(as_expected(v, vs));
  }
}

// One number worked by hand: g = 1 at step 1 moves p by lr (bias corrections cancel), after the decay lr·wd·p.
TEST(AdamW, FirstStepByHand) {
  const auto backend = backend_under_test();
  Doubles one(1, 1);
  one(0, 0) = 1;
  const Held p(one, DType::f32), g(one, DType::f32), m(1, 1, DType::f32), v(1, 1, DType::f32), factor(one, DType::f32);
  backend->adamw({.learning_rate = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 0, .weight_decay = 0.5, .step = 1}, factor,
                 g, p, m, v);
  EXPECT_NEAR(get(p, 0, 0), 1 - 0.05 - 0.1, 4 * 0x1p-24);
  EXPECT_EQ(get(m, 0, 0), static_cast<double>(static_cast<float>(1 - 0.9)));
  EXPECT_EQ(get(v, 0, 0), static_cast<double>(static_cast<float>(1 - 0.999)));
}

}  // namespace
}  // namespace drover
