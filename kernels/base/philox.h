// Philox4x32-10, a counter-based generator: the value of element i depends on (key, i) alone, never on who draws it.
// Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
#pragma once
#include <array>
#include <cstdint>

#include "kernels/base/host_device.h"

namespace drover {

struct PhiloxKey {
  uint32_t lo = 0, hi = 0;
  DROVER_HOST_DEVICE static PhiloxKey of(uint64_t seed) {
    return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  }
};

struct PhiloxBlock {
  uint32_t lane[4];
};

DROVER_HOST_DEVICE inline PhiloxBlock philox(PhiloxKey key, uint64_t counter_lo, uint64_t counter_hi = 0) {
  uint32_t c0 = static_cast<uint32_t>(counter_lo), c1 = static_cast<uint32_t>(counter_lo >> 32);
  uint32_t c2 = static_cast<uint32_t>(counter_hi), c3 = static_cast<uint32_t>(counter_hi >> 32);
  uint32_t k0 = key.lo, k1 = key.hi;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Element `index` of the stream: block index/4, lane index%4, as a float in [0, 1) with 24 bits.
DROVER_HOST_DEVICE inline float philox_uniform(PhiloxKey key, uint64_t index, uint64_t counter_hi = 0) {
  return static_cast<float>(philox(key, index / 4, counter_hi).lane[index % 4] >> 8) * 0x1p-24f;
}

}  // namespace drover
