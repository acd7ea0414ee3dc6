// bfloat16 as storage: the upper half of an IEEE float, rounded to nearest even. NaN stays NaN.
#pragma once
#include <bit>
#include <cstdint>

#include "kernels/base/host_device.h"

namespace drover {

struct bf16 {
  uint16_t bits = 0;
  bf16() = default;
  DROVER_HOST_DEVICE explicit bf16(float value) {
#if defined(__CUDA_ARCH__)
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
    const uint32_t u = std::bit_cast<uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<uint16_t>((u >> 16) | 0x40u);
    } else {
      bits = static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
    }
#endif
  }
  DROVER_HOST_DEVICE explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

}  // namespace drover
