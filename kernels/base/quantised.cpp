#include "kernels/base/quantised.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/base/bf16.h"
#include "kernels/base/e4m3.h"
#include "kernels/base/half.h"
#include "kernels/base/nf4.h"

namespace drover {

namespace {

std::array<float, 256> make_e4m3_levels() {
  std::array<float, 256> levels{};
  for (size_t code = 0; code < levels.size(); ++code) levels[code] = float_of_e4m3(static_cast<uint8_t>(code));
  return levels;
}

// absmax of block b of a slice's row r, both counted from the slice's first.
float absmax_of(const Nf4Slice& slice, int64_t r, int64_t b) {
  const auto at = static_cast<size_t>(r * (slice.cols / kNf4Block) + b);
  if (slice.absmax_codes.empty()) return slice.absmax[at];
  const int64_t blocks = slice.whole_cols / kNf4Block, first = slice.row * blocks + slice.col / kNf4Block;
  const int64_t run = (first + r * blocks + b) / kNf4NestedBlock - first / kNf4NestedBlock;
  const float product = slice.levels[slice.absmax_codes[at]] * slice.nested[static_cast<size_t>(run)];
  return product + slice.offset;
}

}  // namespace

int64_t first_block(int64_t begin, int64_t block) { return block == 0 ? 0 : begin / block; }

int64_t blocks_touched(int64_t begin, int64_t count, int64_t block) {
  if (count == 0) return 0;
  return first_block(begin + count - 1, block) - first_block(begin, block) + 1;
}

bool is_moderate_power(float scale) {
  int exponent = 0;
  return std::frexp(scale, &exponent) == 0.5f && std::abs(exponent - 1) <= 100;
}

float rounded(float value, Rounding rounding) {
  switch (rounding) {
    case Rounding::none: return value;
    case Rounding::bf16: return static_cast<float>(bf16(value));
    case Rounding::f16: return float_of_half(half_of_float(value));
  }
  return value;
}

void dequantise(const Fp8Slice& slice, float* out) {
  static const std::array<float, 256> levels = make_e4m3_levels();
  const auto [high, wide] = slice.blocks;
  const int64_t columns = blocks_touched(slice.col, slice.cols, wide);
  for (int64_t r = 0; r < slice.rows; ++r) {
    const int64_t block_row = first_block(slice.row + r, high) - first_block(slice.row, high);
    for (int64_t b = 0, j = 0; b < columns; ++b) {
      const float scale = slice.scales[static_cast<size_t>(block_row * columns + b)];
      const int64_t end =
          wide == 0 ? slice.cols : std::min(slice.cols, (first_block(slice.col, wide) + b + 1) * wide - slice.col);
      for (; j < end; ++j) {
        const auto at = static_cast<size_t>(r * slice.cols + j);
        out[at] = rounded(levels[slice.codes[at]] * scale, slice.rounding);
      }
    }
  }
}

std::vector<float> absmax_of(const Nf4Slice& slice) {
  std::vector<float> absmax;
  for (int64_t r = 0; r < slice.rows; ++r) {
    for (int64_t b = 0; b < slice.cols / kNf4Block; ++b) absmax.push_back(absmax_of(slice, r, b));
  }
  return absmax;
}

void dequantise(const Nf4Slice& slice, float* out) {
  const uint8_t* code = slice.codes.data();
  for (int64_t r = 0; r < slice.rows; ++r) {
    for (int64_t b = 0; b < slice.cols / kNf4Block; ++b) {
      const float absmax = absmax_of(slice, r, b);
      for (int64_t i = 0; i < kNf4Block; i += 2, ++code) {
        *out++ = rounded(kNf4Levels[*code >> 4] * absmax, slice.rounding);
        *out++ = rounded(kNf4Levels[*code & 15] * absmax, slice.rounding);
      }
    }
  }
}

}  // namespace drover
