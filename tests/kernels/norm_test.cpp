// RMSNorm against double: forward, the same again from a kept rstd, and backward.
#include <gtest/gtest.h>

#include "kernels/backend.h"
#include "kernels/base/error.h"
#include "tests/reference/compare.h"

namespace drover {
namespace {

using namespace reference;

constexpr DType kFloats[] = {DType::f32, DType::bf16};

Matrix<Bounded> bounded(const Held& held) { return as<Bounded>(held.values()); }

TEST(RmsNorm, ForwardAgainAndBackward) {
  const auto backend = backend_under_test();
  const float eps = 1e-5f;
  const int64_t sizes[][2] = {{1, 1}, {3, 17}, {17, 65}, {63, 129}, {2, 8193}, {0, 4}};
  for (const auto& [rows, cols] : sizes) {
    for (int which = 0; which < 4; ++which) {
      const DType type = kFloats[which & 1], weight = kFloats[which >> 1];
      for (const double scale : {1e-4, 1.0, 1e4}) {
        SCOPED_TRACE(fmt::format("({},{}) {} weight {} scale {}", rows, cols, name_of(type), name_of(weight), scale));
        const Held x(drawn_matrix(1, rows, cols, type, scale), type, 3), w(drawn_matrix(2, cols, 1, weight), weight),
            y(rows, cols, type, 5), rstd(rows, 1, DType::f32), again(rows, cols, type);
        backend->rms_norm(x, w, eps, y, rstd);
        const auto expected_rstd = inverse_rms(bounded(x), static_cast<double>(eps));
        EXPECT_TRUE(as_expected(rstd, expected_rstd));
        EXPECT_TRUE(as_expected(y, rms_norm(bounded(x), bounded(w), expected_rstd)));
        backend->rms_norm_again(x, rstd, w, again);
        EXPECT_TRUE(exactly(again, y.values()));

        const Held dy(drawn_matrix(3, rows, cols, type), type, 1), dx(drawn_matrix(4, rows, cols, type), type, 2);
        const auto expected = rms_norm_backward(bounded(dy), bounded(x), bounded(rstd), bounded(w), bounded(dx));
        backend->rms_norm_backward(dy, x, rstd, w, dx);
        EXPECT_TRUE(as_expected(dx, expected));
      }
    }
  }
}

TEST(RmsNorm, NotANumberStaysInItsRow) {
  const auto backend = backend_under_test();
  Doubles values = drawn_matrix(1, 3, 9, DType::f32);
  values(1, 4) = std::nan("");
  const Held x(values, DType::f32), w(drawn_matrix(2, 9, 1, DType::f32), DType::f32), y(3, 9, DType::f32),
      rstd(3, 1, DType::f32);
  backend->rms_norm(x, w, 1e-5f, y, rstd);
  for (int64_t j = 0; j < 9; ++j) {
    EXPECT_TRUE(std::isfinite(get(y, 0, j)) && std::isfinite(get(y, 2, j)));
    EXPECT_TRUE(std::isnan(get(y, 1, j)));
  }
}

}  // namespace
}  // namespace drover
