#include "kernels/base/nf4.h"

#include <algorithm>
#include <cmath>

namespace drover {

namespace {

std::array<float, 256> make_absmax_levels() {
  constexpr int kDecades = 7;
  std::array<float, 256> levels{};
  size_t n = 0;
  for (int decade = 0; decade < kDecades; ++decade) {
    const int steps = 1 << decade;
    const float step = (1.0f - 0.1f) / static_cast<float>(steps);
    const float scale = static_cast<float>(std::pow(10.0, decade - kDecades + 1));
    const auto boundary = [&](int i) {  // from both ends, with one rounding, as PyTorch's linspace
      return i < (steps + 1) / 2 ? std::fma(step, static_cast<float>(i), 0.1f)
                                 : std::fma(-step, static_cast<float>(steps - i), 1.0f);
    };
    for (int i = 0; i < steps; ++i) {
      const float mean = (boundary(i) + boundary(i + 1)) / 2.0f;
      levels[n++] = scale * mean;
      levels[n++] = -scale * mean;
    }
  }
  levels[n++] = 0;
  levels[n++] = 1;
  std::ranges::sort(levels);
  return levels;
}

// Halfway between neighbouring levels, as bitsandbytes spells them.
constexpr std::array<float, 15> kNf4Thresholds = {
    -0.8480964004993439f,  -0.6106329262256622f,   -0.4599952697753906f, -0.33967943489551544f, -0.23460740596055984f,
    -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,   0.2035212516784668f,
    0.2920137718319893f,   0.3893125355243683f,    0.5016634166240692f,  0.6427869200706482f,   0.8614784181118011f};

}  // namespace

const std::array<float, 256>& nf4_absmax_levels() {
  static const std::array<float, 256> levels = make_absmax_levels();
  return levels;
}

void nf4_codes(const float* values, float inverse, uint8_t* codes) {
  float scaled[kNf4Block];
  int32_t code[kNf4Block] = {};  // the number of thresholds below
  for (int64_t i = 0; i < kNf4Block; ++i) scaled[i] = values[i] * inverse;
  for (const float threshold : kNf4Thresholds) {
    for (int64_t i = 0; i < kNf4Block; ++i) code[i] += scaled[i] > threshold ? 1 : 0;
  }
  for (int64_t i = 0; i < kNf4Block; i += 2) codes[i / 2] = static_cast<uint8_t>(code[i] << 4 | code[i + 1]);
}

uint8_t nf4_absmax_code(float x) {
  const std::array<float, 256>& levels = nf4_absmax_levels();
  const auto above = std::ranges::lower_bound(levels, x);
  if (above == levels.begin()) return 0;
  if (above == levels.end()) return 255;
  const auto below = above - 1;
  const bool lower = x - *below <= *above - x;
  return static_cast<uint8_t>((lower ? below : above) - levels.begin());
}

}  // namespace drover
