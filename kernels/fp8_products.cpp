#include "kernels/fp8_products.h"

#include <algorithm>

#include "kernels/base/quantise.h"

namespace drover {

namespace {

constexpr int64_t kPack = 16;

// [0, count) in runs of `length`; 0: one.
void append_runs(int64_t begin, int64_t count, int64_t length, std::vector<SumRun>& runs) {
  const int64_t step = length == 0 ? count : length;
  for (int64_t at = 0; at < count; at += step) runs.push_back({begin + at, std::min(step, count - at)});
}

}  // namespace

bool multiplies_in_fp8(const WeightShape& shape) {
  if (shape.format != Format::fp8 || shape.in % kPack != 0) return false;
  const auto [high, wide] = shape.scaling.blocks;
  const bool blocks = shape.scaling.blocks == kMadeBlocks;
  if (!blocks && (wide != 0 || high > 1)) return false;
  if (blocks && shape.scaling.col % wide != 0) return false;
  return std::ranges::all_of(shape.scaling.parts, [&](const Scaling::Part& part) {
    return part.rows % kPack == 0 && (!blocks || part.row % high == 0);
  });
}

std::vector<SumRun> input_runs(const Fp8Weight& w) {
  std::vector<SumRun> runs;
  append_runs(0, w.in(), w.blocks.columns, runs);
  return runs;
}

std::vector<SumRun> output_runs(const Fp8Weight& w) {
  std::vector<SumRun> runs;
  if (w.blocks.columns == 0) {
    append_runs(0, w.out(), 0, runs);
    return runs;
  }
  int64_t row = 0;
  for (const Scaling::Part& part : w.parts()) {
    append_runs(row, part.rows, w.blocks.rows, runs);
    row += part.rows;
  }
  return runs;
}

}  // namespace drover
