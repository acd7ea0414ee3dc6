#include "model/rope.h"

#include <cmath>
#include <numbers>

namespace drover {

namespace {

std::vector<float> inverse_frequencies(const ModelConfig& c) {
  std::vector<float> result;
  for (int64_t i = 0; i < c.head_dim; i += 2) {
    float f = 1.0f / std::pow(static_cast<float>(c.rope_theta), static_cast<float>(i) / static_cast<float>(c.head_dim));
    if (c.rope_scaling) {
      const RopeScaling& s = *c.rope_scaling;
      const float factor = static_cast<float>(s.factor), low = static_cast<float>(s.low_freq_factor),
                  high = static_cast<float>(s.high_freq_factor);
      const float original = static_cast<float>(s.original_max_positions);
      const float wavelength = 2 * std::numbers::pi_v<float> / f;
      if (wavelength > original / low) {
        f = f / factor;
      } else if (wavelength >= original / high) {
        const float smooth = (original / wavelength - low) / (high - low);
        f = (1 - smooth) * f / factor + smooth * f;
      }
    }
    result.push_back(f);
  }
  return result;
}

}  // namespace

RopeValues rope_values(const ModelConfig& config, int64_t positions) {
  const std::vector<float> frequencies = inverse_frequencies(config);
  RopeValues v;
  v.cosine.reserve(frequencies.size() * static_cast<size_t>(positions));
  v.sine.reserve(v.cosine.capacity());
  for (int64_t p = 0; p < positions; ++p) {
    for (float f : frequencies) {
      const float angle = static_cast<float>(p) * f;
      v.cosine.push_back(std::cos(angle));
      v.sine.push_back(std::sin(angle));
    }
  }
  return v;
}

}  // namespace drover
