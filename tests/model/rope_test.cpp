// RoPE's angles are computed in fp32, as transformers does: off double by what that costs at long positions, no less
// and no more.
#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace drover {
namespace {

ModelConfig llama31() {
  ModelConfig c;
  c.head_dim = 128;
  c.rope_theta = 500000;
  c.rope_scaling = RopeScaling{8, 1, 4, 8192};
  return c;
}

// cos and sin in double, with Llama 3's scaling of the frequencies.
double exact(const ModelConfig& c, int64_t position, int64_t pair, bool sine) {
  double f = std::pow(c.rope_theta, -2.0 * static_cast<double>(pair) / static_cast<double>(c.head_dim));
  const RopeScaling& s = *c.rope_scaling;
  const double wavelength = 2 * std::numbers::pi / f, original = static_cast<double>(s.original_max_positions);
  if (wavelength > original / s.low_freq_factor) {
    f /= s.factor;
  } else if (wavelength >= original / s.high_freq_factor) {
    const double smooth = (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
    f = (1 - smooth) * f / s.factor + smooth * f;
  }
  return sine ? std::sin(static_cast<double>(position) * f) : std::cos(static_cast<double>(position) * f);
}

double largest_error(int64_t position) {
  const ModelConfig c = llama31();
  const RopeValues values = rope_values(c, position + 1);
  double largest = 0;
  for (int64_t pair = 0; pair < c.head_dim / 2; ++pair) {
    const size_t at = static_cast<size_t>(position * c.head_dim / 2 + pair);
    largest = std::max({largest, std::abs(static_cast<double>(values.cosine[at]) - exact(c, position, pair, false)),
                        std::abs(static_cast<double>(values.sine[at]) - exact(c, position, pair, true))});
  }
  return largest;
}

TEST(Rope, AnglesAreFp32) {
  EXPECT_LT(largest_error(1), 2e-7);
  EXPECT_GT(largest_error(8191), 1e-4);  // angles in double would be 1e-7 off
  EXPECT_LT(largest_error(8191), 1e-3);
  EXPECT_GT(largest_error(131071), 1e-3);
  EXPECT_LT(largest_error(131071), 2e-2);
}

}  // namespace
}  // namespace drover
