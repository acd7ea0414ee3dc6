// IEEE binary16 as storage.
#pragma once
#include <bit>
#include <cstdint>

namespace drover {

// Exact.
inline float float_of_half(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 31u, mantissa = bits & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

// To the nearest, ties to even; too large numbers become infinite.
inline uint16_t half_of_float(float value) {
  const uint32_t all = std::bit_cast<uint32_t>(value), sign = (all >> 16) & 0x8000u, size = all & 0x7fffffffu;
  const auto with_sign = [&](uint32_t bits) { return static_cast<uint16_t>(sign | bits); };
  if (size > 0x7f800000u) return with_sign(0x7e00u);
  if (size >= std::bit_cast<uint32_t>(65520.0f)) return with_sign(0x7c00u);
  // Below 2⁻¹⁴ the steps are 2⁻²⁴ wide, as those of fp32 are from 1/2 on: the addition rounds.
  if (size < std::bit_cast<uint32_t>(0x1p-14f))
    return with_sign(std::bit_cast<uint32_t>(std::bit_cast<float>(size) + 0.5f) - std::bit_cast<uint32_t>(0.5f));
  const uint32_t rounded = size + 0xfffu + ((size >> 13) & 1u);
  return with_sign((rounded - (112u << 23)) >> 13);
}

}  // namespace drover
