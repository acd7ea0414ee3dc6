#include "model/files/gguf_super_blocks.h"

#include <cstring>

#include "model/files/stored_type.h"

namespace drover {

namespace {

constexpr int kParts = 8, kPart = 32;

float half_at(const std::byte* at) {
  uint16_t bits = 0;
  std::memcpy(&bits, at, 2);
  return float_of_half(bits);
}

int bits_of(std::byte b, int from, int count) { return std::to_integer<int>(b) >> from & ((1 << count) - 1); }

struct Part {
  float scale = 0, min = 0;
};

// d, dmin (fp16), then twelve bytes: six bits each of 8 scales and 8 minima. Those of the first four parts stand in the
// low bits of bytes 0–3 and 4–7; of the last four, the low nibbles are in bytes 8–11 and the rest in the high bits.
void read_parts(const std::byte* block, Part* parts) {
  const float d = half_at(block), dmin = half_at(block + 2);
  const std::byte* s = block + 4;
  for (int j = 0; j < kParts / 2; ++j) {
    parts[j] = {d * static_cast<float>(bits_of(s[j], 0, 6)), dmin * static_cast<float>(bits_of(s[j + 4], 0, 6))};
    const int scale = bits_of(s[j + 8], 0, 4) | bits_of(s[j], 6, 2) << 4;
    const int min = bits_of(s[j + 8], 4, 4) | bits_of(s[j + 4], 6, 2) << 4;
    parts[j + 4] = {d * static_cast<float>(scale), dmin * static_cast<float>(min)};
  }
}

// `high`: the fifth bits, of part j bit j of each of its 32 bytes; none for Q4_K.
void q4_or_q5(const std::byte* block, const std::byte* high, const std::byte* nibbles, float* out) {
  Part parts[kParts];
  read_parts(block, parts);
  for (int j = 0; j < kParts; ++j) {
    for (int i = 0; i < kPart; ++i) {
      int q = bits_of(nibbles[j / 2 * kPart + i], j % 2 * 4, 4);
      if (high != nullptr) q |= bits_of(high[i], j, 1) << 4;
      *out++ = parts[j].scale * static_cast<float>(q) - parts[j].min;
    }
  }
}

}  // namespace

void q4_k(const std::byte* block, float* out) { q4_or_q5(block, nullptr, block + 16, out); }
void q5_k(const std::byte* block, float* out) { q4_or_q5(block, block + 16, block + 48, out); }

// Low nibbles of 256 weights, their upper two bits, 16 scales, d. In each half, weight 32·k + i has its nibble in byte
// i + 32·(k mod 2), its upper bits in byte i at 2·k.
void q6_k(const std::byte* block, float* out) {
  const float d = half_at(block + 208);
  for (int half = 0; half < 2; ++half) {
    const std::byte *low = block + half * 64, *high = block + 128 + half * 32, *scales = block + 192 + half * 8;
    for (int k = 0; k < 4; ++k) {
      for (int i = 0; i < 32; ++i) {
        const int q = bits_of(low[i + k % 2 * 32], k / 2 * 4, 4) | bits_of(high[i], 2 * k, 2) << 4;
        const auto scale = static_cast<int8_t>(std::to_integer<uint8_t>(scales[k * 2 + i / 16]));
        *out++ = d * static_cast<float>(scale) * static_cast<float>(q - 32);
      }
    }
  }
}

}  // namespace drover
