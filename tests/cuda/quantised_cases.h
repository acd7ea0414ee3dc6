// Quantised weights for tests of the CUDA backend: whole tensors of drawn codes and scales, weights that hold parts of
// them, and what each of their values is, by plain arithmetic on the whole tensor.
#pragma once
#include <fmt/core.h>

#include "kernels/base/e4m3.h"
#include "kernels/quantised_weight.h"
#include "tests/cuda/matmul_cases.h"

namespace drover::cuda {
namespace {

inline const char* name_of(Rounding r) { return r == Rounding::none ? "none" : r == Rounding::bf16 ? "bf16" : "f16"; }
constexpr Rounding kRoundings[] = {Rounding::none, Rounding::bf16, Rounding::f16};

inline double drawn(uint64_t seed, int64_t i) {
  return static_cast<double>(philox_uniform(PhiloxKey::of(seed), static_cast<uint64_t>(i)));
}
inline uint8_t drawn_byte(uint64_t seed, int64_t i) { return static_cast<uint8_t>(drawn(seed, i) * 256); }

inline float rounded_as(float value, Rounding rounding) {
  if (rounding == Rounding::bf16) return static_cast<float>(bf16(value));
  return rounding == Rounding::f16 ? static_cast<float>(static_cast<_Float16>(value)) : value;
}

// One whole tensor. Its levels of absmax are those of no file.
struct WholeTensor {
  Format format;
  ScaleBlocks blocks;
  bool nested;
  Rounding rounding;
  int64_t cols;
  uint64_t seed;

  float scale(int64_t i, int64_t j) const {  // fp8: of a block
    const int64_t across = blocks_touched(0, cols, blocks.columns);
    const int64_t at = first_block(i, blocks.rows) * across + first_block(j, blocks.columns);
    return static_cast<float>(0.001 + drawn(seed + 1, at) / 100);
  }
  uint8_t code(int64_t i, int64_t j) const {
    const uint8_t byte = drawn_byte(seed, i * cols + j);
    if (format == Format::nf4) return byte & 15;
    return (byte & 0x7f) == 0x7f ? 0x7e : byte;  // no NaN
  }
  int64_t block(int64_t i, int64_t j) const { return i * (cols / kNf4Block) + j / kNf4Block; }
  uint8_t absmax_code(int64_t b) const { return drawn_byte(seed + 2, b); }
  float absmax_level(int64_t code) const { return static_cast<float>(drawn(55, code)); }
  float plain_absmax(int64_t b) const { return static_cast<float>(drawn(seed + 2, b)); }
  float nested_absmax(int64_t run) const { return static_cast<float>(0.5 + drawn(seed + 3, run)); }
  float offset() const { return static_cast<float>(drawn(seed + 4, 0) / 10); }
  float value(int64_t i, int64_t j) const {
    if (format == Format::fp8) return rounded_as(float_of_e4m3(code(i, j)) * scale(i, j), rounding);
    const int64_t b = block(i, j);
    float absmax = plain_absmax(b);
    if (nested) {
      const float product = absmax_level(absmax_code(b)) * nested_absmax(b / kNf4NestedBlock);
      absmax = product + offset();
    }
    return rounded_as(kNf4Levels[code(i, j)] * absmax, rounding);
  }

  Fp8Slice fp8(int64_t row, int64_t count, int64_t col, int64_t width) const {
    Fp8Slice made{.row = row, .rows = count, .col = col, .cols = width, .blocks = blocks, .rounding = rounding};
    for (int64_t i = row; i < row + count; ++i) {
      for (int64_t j = col; j < col + width; ++j) made.codes.push_back(code(i, j));
    }
    const auto begins = [](int64_t begin, int64_t size, int64_t block) {  // of each touched block, one of its elements
      std::vector<int64_t> all;
      for (int64_t b = 0; b < blocks_touched(begin, size, block); ++b)
        all.push_back(block == 0 ? 0 : (first_block(begin, block) + b) * block);
      return all;
    };
    for (const int64_t i : begins(row, count, blocks.rows)) {
      for (const int64_t j : begins(col, width, blocks.columns)) made.scales.push_back(scale(i, j));
    }
    return made;
  }
  Nf4Slice nf4(int64_t row, int64_t count, int64_t col, int64_t width) const {
    Nf4Slice made{.row = row, .rows = count, .col = col, .cols = width, .whole_cols = cols, .rounding = rounding};
    for (int64_t i = row; i < row + count; ++i) {
      for (int64_t j = col; j < col + width; j += 2)
        made.codes.push_back(static_cast<uint8_t>(code(i, j) << 4 | code(i, j + 1)));
      for (int64_t j = col; j < col + width; j += kNf4Block) {
        if (nested) made.absmax_codes.push_back(absmax_code(block(i, j)));
        if (!nested) made.absmax.push_back(plain_absmax(block(i, j)));
      }
    }
    if (!nested) return made;
    made.offset = offset();
    for (int64_t code = 0; code < kNf4AbsmaxLevels; ++code) made.levels.push_back(absmax_level(code));
    const int64_t first = block(row, col), last = block(row + count - 1, col + width - 1);
    for (int64_t run = first / kNf4NestedBlock; run <= last / kNf4NestedBlock; ++run)
      made.nested.push_back(nested_absmax(run));
    return made;
  }
};

// What a weight is made of: columns [col, col + in) of `parts`, each rows of a tensor of its own.
struct QuantisedCase {
  Format format = Format::nf4;
  ScaleBlocks blocks = {};
  bool nested = false;
  int64_t in = 0, col = 0, whole_cols = 0;
  std::vector<Scaling::Part> parts = {};
  Rounding rounding = Rounding::bf16;
  int64_t adapter_rank = 0;

  std::string name() const {
    std::string text = fmt::format("{} rounding {} columns {}+{} of {}", format == Format::fp8 ? "fp8" : "nf4",
                                   cuda::name_of(rounding), col, in, whole_cols);
    text += format == Format::fp8 ? fmt::format(" blocks {}x{}", blocks.rows, blocks.columns) : nested ? " nested" : "";
    for (const Scaling::Part& p : parts) text += fmt::format(" [{},+{})", p.row, p.rows);
    return text;
  }
  int64_t out() const {
    int64_t rows = 0;
    for (const Scaling::Part& p : parts) rows += p.rows;
    return rows;
  }
};

class Quantised {
 public:
  Quantised(Backend& backend, const QuantisedCase& c)
      : case_(c), arena_("weights", backend.memory(), int64_t{64} << 20), values_(c.out(), c.in) {
    weight_ = backend.make_weight(
        arena_,
        {c.out(), c.in, c.format, c.adapter_rank, {c.blocks, c.nested, c.rounding, c.col, c.whole_cols, c.parts}});
    int64_t at = 0;
    for (size_t i = 0; i < c.parts.size(); ++i) {
      const auto [row, rows] = c.parts[i];
      const WholeTensor tensor{c.format, c.blocks, c.nested, c.rounding, c.whole_cols, 10 * i};
      for (int64_t begin = 0; begin < rows; begin += kRowsALoad) {
        const int64_t count = std::min(kRowsALoad, rows - begin);
        if (c.format == Format::fp8) {
          static_cast<Fp8Weight&>(*weight_).load(backend, i, tensor.fp8(row + begin, count, c.col, c.in));
        } else {
          static_cast<Nf4Weight&>(*weight_).load(backend, i, tensor.nf4(row + begin, count, c.col, c.in));
        }
      }
      for (int64_t r = 0; r < rows; ++r, ++at) {
        for (int64_t j = 0; j < c.in; ++j) values_(at, j) = static_cast<double>(tensor.value(row + r, c.col + j));
      }
    }
    finish();
  }
  const Weight& weight() const { return *weight_; }
  const Doubles& values() const { return values_; }
  Doubles values(DType type) const {  // as a panel of this dtype holds them
    Doubles all = values_;
    for (double& value : all.values) value = rounded(value, type);
    return all;
  }

 private:
  static constexpr int64_t kRowsALoad = 37;
  QuantisedCase case_;
  Arena arena_;
  std::unique_ptr<Weight> weight_;
  Doubles values_;
};

// Blocks of scales that nothing is a multiple of, of rows, of all; weights that begin and end within blocks; two
// tensors one under another; absmax in runs of 256 that a row's blocks cross.
inline std::vector<QuantisedCase> quantised_cases() {
  std::vector<QuantisedCase> all = {
      {.format = Format::fp8, .blocks = {128, 128}, .in = 264, .col = 72, .whole_cols = 520, .parts = {{100, 41}}},
      {.format = Format::fp8, .blocks = {5, 3}, .in = 75, .col = 4, .whole_cols = 90, .parts = {{3, 19}, {7, 13}}},
      {.format = Format::fp8, .blocks = {4, 12}, .in = 272, .col = 5, .whole_cols = 300, .parts = {{1, 9}}},
      {.format = Format::fp8, .blocks = {1, 0}, .in = 33, .whole_cols = 33, .parts = {{0, 37}}},
      {.format = Format::fp8, .in = 600, .whole_cols = 600, .parts = {{0, 5}, {2, 6}}},
      {.nested = true, .in = 320, .col = 192, .whole_cols = 640, .parts = {{23, 40}, {1, 5}}},
      {.nested = true, .in = 64, .whole_cols = 64, .parts = {{250, 43}}},
      {.in = 2176, .col = 64, .whole_cols = 2304, .parts = {{5, 7}}},
      {.nested = true, .in = 4224, .whole_cols = 4224, .parts = {{2, 3}, {0, 3}}},
  };
  return all;
}

}  // namespace
}  // namespace drover::cuda
