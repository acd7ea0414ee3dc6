// Quantised weights for tests: cut from drawn tensors where no block begins, with the values that they stand for.
#pragma once
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/backend.h"
#include "kernels/base/e4m3.h"
#include "kernels/base/nf4.h"
#include "kernels/base/quantise.h"
#include "kernels/quantised_weight.h"
#include "tests/reference/matrix.h"

namespace drover {

struct QuantisedKind {
  Format format = Format::fp8;
  ScaleBlocks blocks = kMadeBlocks;
  bool nested = false;
  Rounding rounding = Rounding::none;
  Products products = Products::widened;
  float largest_input = 0;
  bool powers = false;  // of two: the scales
};

inline constexpr QuantisedKind kQuantisedKinds[] = {
    {Format::fp8, kMadeBlocks},
    {Format::fp8, kMadeBlocks, false, Rounding::none, Products::widened, 0, true},
    {Format::fp8, {1, 0}, false, Rounding::bf16},
    {Format::fp8, {3, 64}, false, Rounding::bf16, Products::widened, 0, true},
    {Format::fp8, {0, 0}},
    {Format::fp8, {5, 7}, false, Rounding::f16},
    {Format::nf4, {}, true},
    {Format::nf4, {}, true, Rounding::bf16},
    {Format::nf4, {}, false, Rounding::f16},
};

// "fp8_128x128", "fp8_1x0_bf16", "nf4_nested_f16"
inline std::string text_of(const QuantisedKind& k) {
  constexpr const char* kRoundings[] = {"", "_bf16", "_f16"};
  const std::string scales = k.format == Format::fp8 ? fmt::format("fp8_{}x{}", k.blocks.rows, k.blocks.columns)
                             : k.nested              ? "nf4_nested"
                                                     : "nf4_plain";
  return scales + (k.powers ? "_powers" : "") + kRoundings[static_cast<int>(k.rounding)];
}
inline std::string kind_name(const testing::TestParamInfo<QuantisedKind>& kind) { return text_of(kind.param); }
inline void PrintTo(const QuantisedKind& k, std::ostream* out) { *out << text_of(k); }

// Rows of a whole tensor of values drawn by `seed`.
struct QuantisedPart {
  uint64_t seed;
  int64_t row, rows;
};

class QuantisedWeight {
 public:
  struct Range {
    int64_t begin, count;
  };
  // Columns [col, col + cols) of parts one under another, each of a tensor (whole_rows, whole_cols).
  QuantisedWeight(Backend& backend, const QuantisedKind& kind, const std::vector<QuantisedPart>& parts, Range cols,
                  int64_t whole_rows, int64_t whole_cols)
      : backend_(backend), kind_(kind), cols_(cols), arena_("weights", backend.memory(), 1 << 24), values(0, 0) {
    WeightShape shape{.in = cols.count, .format = kind.format};
    shape.scaling = {kind.blocks, kind.nested, kind.rounding, cols.begin, whole_cols, {}, kind.largest_input};
    shape.products = kind.products;
    for (const QuantisedPart& part : parts) {
      shape.scaling.parts.push_back({part.row, part.rows});
      shape.out += part.rows;
    }
    weight = backend.make_weight(arena_, shape);
    values = reference::Doubles(shape.out, cols.count);
    if (kind.format == Format::fp8) codes = scales = values;
    for (size_t i = 0; i < parts.size(); ++i) {
      const auto drawn = reference::drawn_matrix(parts[i].seed, whole_rows, whole_cols, DType::bf16);
      const Whole whole{{drawn.values.begin(), drawn.values.end()}, whole_rows, whole_cols};
      const int64_t half = parts[i].rows / 2;  // in two pieces, as a loader reads
      load(i, whole, {parts[i].row, half});
      load(i, whole, {parts[i].row + half, parts[i].rows - half});
    }
  }

 private:
  struct Whole {
    std::vector<float> values;
    int64_t rows, cols;
  };

  void load(size_t part, const Whole& whole, Range rows) {
    if (rows.count == 0) return;
    kind_.format == Format::fp8 ? load_fp8(part, whole, rows) : load_nf4(part, whole, rows);
    loaded_ += rows.count;
  }

  void load_fp8(size_t part, const Whole& whole, Range rows) {
    Fp8Slice all{.rows = whole.rows, .cols = whole.cols, .blocks = kind_.blocks, .rounding = kind_.rounding};
    for (const float value : whole.values) all.codes.push_back(e4m3_of_float(value * 16));
    const int64_t scales =
        blocks_touched(0, whole.rows, kind_.blocks.rows) * blocks_touched(0, whole.cols, kind_.blocks.columns);
    for (int64_t i = 0; i < scales; ++i) {
      const float drawn = 0.01f + 0.0013f * static_cast<float>(i % 37);
      all.scales.push_back(kind_.powers ? std::ldexp(1.0f, static_cast<int>(i % 5) - 8) : drawn);
    }
    const Fp8Slice slice = cut(all, rows.begin, rows.count, cols_.begin, cols_.count);
    static_cast<Fp8Weight&>(*weight).load(backend_, part, slice);
    keep(slice);
  }

  void load_nf4(size_t part, const Whole& whole, Range rows) {
    std::vector<float> absmax, mine;
    for (size_t i = 0; i < whole.values.size(); i += kNf4Block)
      absmax.push_back(largest_magnitude({whole.values.data() + i, static_cast<size_t>(kNf4Block)}));
    for (int64_t r = rows.begin; r < rows.begin + rows.count; ++r) {
      const auto begin = whole.values.begin() + r * whole.cols + cols_.begin;
      mine.insert(mine.end(), begin, begin + cols_.count);
    }
    const Nf4Scales scales(absmax, whole.cols);
    Nf4Slice slice = scales.make(mine, rows.begin, rows.count, cols_.begin, cols_.count);
    slice.rounding = kind_.rounding;
    if (!kind_.nested) {
      slice.absmax = absmax_of(slice);
      slice.absmax_codes.clear();
      slice.nested.clear();
    }
    static_cast<Nf4Weight&>(*weight).load(backend_, part, slice);
    keep(slice);
  }

  void keep_codes(const Fp8Slice& slice) {
    Fp8Slice one = slice;
    one.rounding = Rounding::none;
    for (uint8_t& code : one.codes) code = e4m3_of_float(1);
    put(one, scales);
    one = slice;
    one.rounding = Rounding::none;
    for (float& scale : one.scales) scale = 1;
    put(one, codes);
  }

  template <typename Slice>
  void keep(const Slice& slice) {
    if constexpr (std::is_same_v<Slice, Fp8Slice>) keep_codes(slice);
    put(slice, values);
  }

  template <typename Slice>
  void put(const Slice& slice, reference::Doubles& to) const {
    std::vector<float> dequantised(static_cast<size_t>(slice.rows * slice.cols));
    dequantise(slice, dequantised.data());
    std::ranges::copy(dequantised, to.values.begin() + loaded_ * slice.cols);
  }

  Backend& backend_;
  QuantisedKind kind_;
  Range cols_;
  int64_t loaded_ = 0;  // rows
  Arena arena_;

 public:
  std::unique_ptr<Weight> weight;
  reference::Doubles values;  // (out, in)
  reference::Doubles codes;   // fp8: what each code stands for
  reference::Doubles scales;  // fp8: of each element
};

}  // namespace drover
