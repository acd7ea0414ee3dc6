#include "kernels/base/quantise.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/base/e4m3.h"
#include "kernels/base/nf4.h"
#include "kernels/base/require.h"

namespace drover {

namespace {
constexpr float kLeastAbsmax = 1e-38f;  // whose inverse is taken, so that a block of zeros is coded as zeros

// The least power of two that is not less than v, and is a normal number; infinity stays, so that its block is seen.
float power_from(float v) {
  if (!std::isfinite(v)) return v;
  if (v <= std::numeric_limits<float>::min()) return std::numeric_limits<float>::min();
  int exponent = 0;
  const float fraction = std::frexp(v, &exponent);  // in [0.5, 1)
  return std::ldexp(1.0f, fraction == 0.5f ? exponent - 1 : exponent);
}

}  // namespace

float largest_magnitude(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

Fp8Slice make_fp8(std::span<const float> values, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  const auto [high, wide] = kMadeBlocks;
  require(row % high == 0 && col % wide == 0, "fp8 is made of whole blocks");
  Fp8Slice made{.row = row, .rows = rows, .col = col, .cols = cols, .blocks = kMadeBlocks};
  made.codes.resize(values.size());
  const int64_t blocks_high = (rows + high - 1) / high, blocks_wide = (cols + wide - 1) / wide;
  made.scales.resize(static_cast<size_t>(blocks_high * blocks_wide));
  for (int64_t block = 0; block < blocks_high * blocks_wide; ++block) {
    const int64_t i = block / blocks_wide * high, j = block % blocks_wide * wide;
    const int64_t last = std::min(i + high, rows), width = std::min(wide, cols - j);
    const auto part = [&](int64_t r) { return static_cast<size_t>(r * cols + j); };
    float largest = 0;
    for (int64_t r = i; r < last; ++r)
      largest = std::max(largest, largest_magnitude(values.subspan(part(r), static_cast<size_t>(width))));
    const float scale = largest == 0 ? 1 : power_from(largest / kLargestE4m3);
    made.scales[static_cast<size_t>(block)] = scale;
    for (int64_t r = i; r < last; ++r) {
      for (size_t at = part(r); at < part(r) + static_cast<size_t>(width); ++at)
        made.codes[at] = e4m3_of_float(values[at] / scale);
    }
  }
  return made;
}

Fp8Slice cut(const Fp8Slice& slice, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  require(row >= slice.row && row + rows <= slice.row + slice.rows && col >= slice.col &&
              col + cols <= slice.col + slice.cols,
          "a part lies in its slice");
  Fp8Slice part{.row = row, .rows = rows, .col = col, .cols = cols, .blocks = slice.blocks, .rounding = slice.rounding};
  for (int64_t r = row; r < row + rows; ++r) {
    const auto begin = slice.codes.begin() + (r - slice.row) * slice.cols + col - slice.col;
    part.codes.insert(part.codes.end(), begin, begin + cols);
  }
  const auto [high, wide] = slice.blocks;
  const int64_t all_columns = blocks_touched(slice.col, slice.cols, wide), columns = blocks_touched(col, cols, wide);
  for (int64_t i = 0; i < blocks_touched(row, rows, high); ++i) {
    const int64_t from = first_block(row, high) + i - first_block(slice.row, high);
    const auto begin =
        slice.scales.begin() + from * all_columns + first_block(col, wide) - first_block(slice.col, wide);
    part.scales.insert(part.scales.end(), begin, begin + columns);
  }
  return part;
}

Nf4Scales::Nf4Scales(std::vector<float> absmax, int64_t whole_cols)
    : whole_cols_(whole_cols), absmax_(std::move(absmax)) {
  require(whole_cols % kNf4Block == 0, "a row of NF4 is whole blocks");
  double sum = 0;
  for (const float value : absmax_) sum += static_cast<double>(value);
  offset_ = static_cast<float>(sum / static_cast<double>(absmax_.size()));
  constexpr size_t kRun = kNf4NestedBlock;
  for (size_t begin = 0; begin < absmax_.size(); begin += kRun) {
    float largest = 0;
    for (size_t i = begin; i < std::min(begin + kRun, absmax_.size()); ++i)
      largest = std::max(largest, std::fabs(absmax_[i] - offset_));
    nested_.push_back(largest);
  }
}

Nf4Slice Nf4Scales::make(std::span<const float> values, int64_t row, int64_t rows, int64_t col, int64_t cols) const {
  require(col % kNf4Block == 0 && cols % kNf4Block == 0, "columns of NF4 begin and end between blocks");
  Nf4Slice made{.row = row, .rows = rows, .col = col, .cols = cols, .whole_cols = whole_cols_, .offset = offset_};
  made.levels.assign(nf4_absmax_levels().begin(), nf4_absmax_levels().end());
  made.codes.resize(values.size() / 2);
  made.absmax_codes.resize(values.size() / kNf4Block);
  const int64_t blocks = whole_cols_ / kNf4Block, own = cols / kNf4Block;
  for (int64_t i = 0; i < rows * own; ++i) {
    const int64_t block = (row + i / own) * blocks + col / kNf4Block + i % own;
    const float absmax = absmax_[static_cast<size_t>(block)];
    nf4_codes(values.data() + i * kNf4Block, 1 / std::max(absmax, kLeastAbsmax), made.codes.data() + i * kNf4Block / 2);
    const float nested = nested_[static_cast<size_t>(block / kNf4NestedBlock)];
    made.absmax_codes[static_cast<size_t>(i)] = nf4_absmax_code((absmax - offset_) * (1 / nested));
  }
  const int64_t first = row * blocks + col / kNf4Block, end = (row + rows - 1) * blocks + (col + cols) / kNf4Block;
  made.nested.assign(nested_.begin() + first / kNf4NestedBlock, nested_.begin() + (end - 1) / kNf4NestedBlock + 1);
  return made;
}

}  // namespace drover
