// fp8 as weights have it: one sign, four bits of exponent (bias 7), three of mantissa; ±448 at most, no infinity, and
// one NaN of each sign (S.1111.111). Source: Micikevicius et al. 2022, "FP8 formats for deep learning", E4M3 (the
// "float8_e4m3fn" of PyTorch and the F8_E4M3 of safetensors).
#pragma once
#include <bit>
#include <cstdint>

#include "kernels/base/host_device.h"

namespace drover {

inline constexpr float kLargestE4m3 = 448;

// Exact.
DROVER_HOST_DEVICE inline float float_of_e4m3(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24, size = code & 0x7fu;
  if (size == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000u);
  const uint32_t exponent = size >> 3, mantissa = size & 7u;
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 120) << 23) | (mantissa << 20));
  const float small = static_cast<float>(mantissa) * 0x1p-9f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(small));
}

// To the nearest, ties to even; too large numbers and infinities become ±448, NaN stays NaN.
DROVER_HOST_DEVICE inline uint8_t e4m3_of_float(float value) {
  const uint32_t all = std::bit_cast<uint32_t>(value), sign = (all >> 24) & 0x80u, size = all & 0x7fffffffu;
  if (size > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
  if (size >= std::bit_cast<uint32_t>(kLargestE4m3)) return static_cast<uint8_t>(sign | 0x7eu);
  // Below 2⁻⁶ the steps are 2⁻⁹ wide, as those of fp32 are from 2¹⁴ on: the addition rounds.
  if (size < std::bit_cast<uint32_t>(0x1p-6f)) {
    const float sum = std::bit_cast<float>(size) + 0x1p14f;
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(sum) - std::bit_cast<uint32_t>(0x1p14f)));
  }
  const uint32_t rounded = size + 0x7ffffu + ((size >> 20) & 1u);
  return static_cast<uint8_t>(sign | ((rounded >> 20) - (120u << 3)));
}

}  // namespace drover
