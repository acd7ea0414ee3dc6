// Quantised weights for tests: cut from drawn tensors where no block begins, with the values that they stand for.
#pragma once
#include <fmt/format.h>

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
};

inline constexpr QuantisedKind kQuantisedKinds[] = {
    {Format::fp8, kMadeBlocks},
    {Format::fp8, {1, 0}, false, Rounding::bf16},
    {Format::fp8, {0, 0}},
    {Format::fp8, {5, 7}, false, Rounding::f16},
    {Format::nf4, {}, true},
    {Format::nf4, {}, true, Rounding::bf16},
    {Format::nf4, {}, false, Rounding::f16},
};

inline std::string text_of(const QuantisedKind& k) {
  return fmt::format("{} blocks {}x{}, {}, rounding {}", k.format == Format::fp8 ? "fp8" : "nf4", k.blocks.rows,
                     k.blocks.columns, k.nested ? "nested" : "plain", static_cast<int>(k.rounding));
}

// Rows and columns of a whole tensor of values drawn by `seed`.
struct QuantisedPart {
  uint64_t seed;
  int64_t row, rows;
};

class QuantisedWeight {
 public:
  // Of parts one under another, each of a tensor (whole_rows, whole_cols).
  QuantisedWeight(Backend& backend, const QuantisedKind& kind, std::vector<QuantisedPart> parts, int64_t col,
                  int64_t cols, int64_t whole_rows, int64_t whole_cols)
      : arena_("weights", backend.memory(), 1 << 24), values(0, 0) {
    WeightShape shape{.in = cols, .format = kind.format};
    shape.scaling = {kind.blocks, kind.nested, kind.rounding, col, whole_cols, {}};
    for (const QuantisedPart& part : parts) {
      shape.scaling.parts.push_back({part.row, part.rows});
      shape.out += part.rows;
    }
    weight = backend.make_weight(arena_, shape);
    values = reference::Doubles(shape.out, cols);
    int64_t row = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      const auto drawn = reference::drawn_matrix(parts[i].seed, whole_rows, whole_cols, DType::bf16);
      std::vector<float> whole(drawn.values.begin(), drawn.values.end());
      // In two pieces, as a loader reads.
      const int64_t half = parts[i].rows / 2;
      for (const auto& [begin, count] : {std::pair{int64_t{0}, half}, {half, parts[i].rows - half}}) {
        if (count == 0) continue;
        const int64_t first = parts[i].row + begin;
        kind.format == Format::fp8 ? load_fp8(backend, kind, whole, whole_rows, whole_cols, i, first, count, col, row)
                                   : load_nf4(backend, kind, whole, whole_cols, i, first, count, col, row);
        row += count;
      }
    }
  }

 private:
  Arena arena_;

 public:
  std::unique_ptr<Weight> weight;
  reference::Doubles values;  // (out, in)

 private:
  void load_fp8(Backend& backend, const QuantisedKind& kind, const std::vector<float>& whole, int64_t whole_rows,
                int64_t whole_cols, size_t part, int64_t row, int64_t rows, int64_t col, int64_t at) {
    Fp8Slice all{.rows = whole_rows, .cols = whole_cols, .blocks = kind.blocks, .rounding = kind.rounding};
    for (const float value : whole) all.codes.push_back(e4m3_of_float(value * 16));
    const int64_t scales =
        blocks_touched(0, whole_rows, kind.blocks.rows) * blocks_touched(0, whole_cols, kind.blocks.columns);
    for (int64_t i = 0; i < scales; ++i) all.scales.push_back(0.01f + 0.0013f * static_cast<float>(i % 37));
    const Fp8Slice slice = cut(all, row, rows, col, values.cols);
    static_cast<Fp8Weight&>(*weight).load(backend, part, slice);
    keep(slice, at);
  }

  void load_nf4(Backend& backend, const QuantisedKind& kind, const std::vector<float>& whole, int64_t whole_cols,
                size_t part, int64_t row, int64_t rows, int64_t col, int64_t at) {
    std::vector<float> absmax;
    for (size_t i = 0; i < whole.size(); i += kNf4Block)
      absmax.push_back(largest_magnitude({whole.data() + i, static_cast<size_t>(kNf4Block)}));
    const Nf4Scales scales(absmax, whole_cols);
    std::vector<float> mine;
    for (int64_t i = 0; i < rows; ++i) {
      const auto begin = whole.begin() + (row + i) * whole_cols + col;
      mine.insert(mine.end(), begin, begin + values.cols);
    }
    Nf4Slice slice = scales.make(mine, row, rows, col, values.cols);
    slice.rounding = kind.rounding;
    if (!kind.nested) {
      slice.absmax = absmax_of(slice);
      slice.absmax_codes.clear();
      slice.nested.clear();
    }
    static_cast<Nf4Weight&>(*weight).load(backend, part, slice);
    keep(slice, at);
  }

  template <typename Slice>
  void keep(const Slice& slice, int64_t at) {
    std::vector<float> dequantised(static_cast<size_t>(slice.rows * slice.cols));
    dequantise(slice, dequantised.data());
    std::ranges::copy(dequantised, values.values.begin() + at * slice.cols);
  }
};

}  // namespace drover
