#include "kernels/quantised_weight.h"

#include <algorithm>

#include "kernels/backend.h"
#include "kernels/fp8_products.h"

namespace drover {

namespace {

using Part = Scaling::Part;

// Rows of scales that lie above those of `part`.
int64_t scale_rows_above(std::span<const Part> parts, size_t part, int64_t block) {
  int64_t rows = 0;
  for (const Part& p : parts.first(part)) rows += blocks_touched(p.row, p.rows, block);
  return rows;
}

int64_t rows_above(std::span<const Part> parts, size_t part) {
  int64_t rows = 0;
  for (const Part& p : parts.first(part)) rows += p.rows;
  return rows;
}

// Blocks of 64 of a tensor, counted row by row, that a part's rows reach over.
struct BlockRange {
  int64_t begin, end;
  int64_t first_run() const { return begin / kNf4NestedBlock; }
  int64_t runs() const { return (end - 1) / kNf4NestedBlock + 1 - first_run(); }
};
BlockRange blocks_of(int64_t row, int64_t rows, int64_t col, int64_t cols, int64_t whole_cols) {
  const int64_t in_row = whole_cols / kNf4Block;
  return {row * in_row + col / kNf4Block, (row + rows - 1) * in_row + (col + cols) / kNf4Block};
}

int64_t runs_above(std::span<const Part> parts, size_t part, int64_t col, int64_t cols, int64_t whole_cols) {
  int64_t runs = 0;
  for (const Part& p : parts.first(part)) runs += blocks_of(p.row, p.rows, col, cols, whole_cols).runs();
  return runs;
}

void check(const WeightShape& shape) {
  require(rows_above(shape.scaling.parts, shape.scaling.parts.size()) == shape.out, "a weight's parts are its rows");
  require(shape.scaling.col + shape.in <= shape.scaling.whole_cols, "a weight's columns lie in its tensors");
  require(shape.format != Format::nf4 || (shape.in % kNf4Block == 0 && shape.scaling.col % kNf4Block == 0 &&
                                          shape.scaling.whole_cols % kNf4Block == 0),
          "columns of NF4 begin and end between blocks");
}

void put(Backend& backend, std::span<const int32_t> values, Tensor column, int64_t row) {
  backend.upload(values.data(), column.rows_from(row, static_cast<int64_t>(values.size())));
}

}  // namespace

Fp8Weight::Fp8Weight(Arena& arena, const WeightShape& s)
    : Weight(s),
      blocks(s.scaling.blocks),
      rounding(s.scaling.rounding),
      largest_input(s.scaling.largest_input),
      column_phase(blocks.columns == 0 ? 0 : s.scaling.col % blocks.columns),
      codes(arena.tensor(s.out, s.in, DType::u8)),
      scales(arena.tensor(scale_rows_above(s.scaling.parts, s.scaling.parts.size(), blocks.rows),
                          blocks_touched(s.scaling.col, s.in, blocks.columns), DType::f32)),
      scale_row(arena.tensor(s.out, 1, DType::i32)),
      parts_(s.scaling.parts) {
  check(s);
  require(products() == Products::widened || multiplies_in_fp8(s),
          "a weight that multiplies in fp8 is of such a shape");
}

void Fp8Weight::load(Backend& backend, size_t part, const Fp8Slice& rows) {
  const Part& p = parts_.at(part);
  require(rows.blocks == blocks && rows.rounding == rounding && rows.cols == in() && rows.row >= p.row &&
              rows.row + rows.rows <= p.row + p.rows,
          "an fp8 weight is loaded with rows of its own scaling");
  const int64_t at = rows_above(parts_, part) + rows.row - p.row;
  const int64_t first = first_block(rows.row, blocks.rows);
  const int64_t scale_at = scale_rows_above(parts_, part, blocks.rows) + first - first_block(p.row, blocks.rows);
  scales_are_powers_ = scales_are_powers_ && std::ranges::all_of(rows.scales, is_moderate_power);
  backend.upload(rows.codes.data(), codes.rows_from(at, rows.rows));
  backend.upload(rows.scales.data(), scales.rows_from(scale_at, blocks_touched(rows.row, rows.rows, blocks.rows)));
  std::vector<int32_t> of_row;
  for (int64_t i = 0; i < rows.rows; ++i)
    of_row.push_back(static_cast<int32_t>(scale_at + first_block(rows.row + i, blocks.rows) - first));
  put(backend, of_row, scale_row, at);
}

Nf4Weight::Nf4Weight(Arena& arena, const WeightShape& s)
    : Weight(s),
      rounding(s.scaling.rounding),
      codes(arena.tensor(s.out, s.in / 2, DType::u8)),
      absmax(arena.tensor(s.out, s.in / kNf4Block, s.scaling.nested ? DType::u8 : DType::f32)),
      levels(arena.tensor(s.scaling.nested ? kNf4AbsmaxLevels : 0, 1, DType::f32)),
      nested_absmax(arena.tensor(s.scaling.nested ? runs_above(s.scaling.parts, s.scaling.parts.size(), s.scaling.col,
                                                               s.in, s.scaling.whole_cols)
                                                  : 0,
                                 1, DType::f32)),
      first_block(arena.tensor(s.scaling.nested ? s.out : 0, 1, DType::i32)),
      offset(arena.tensor(s.scaling.nested ? s.out : 0, 1, DType::f32)),
      parts_(s.scaling.parts),
      col_(s.scaling.col),
      whole_cols_(s.scaling.whole_cols) {
  check(s);
}

int64_t Nf4Weight::bytes() const {
  return codes.bytes() + absmax.bytes() + levels.bytes() + nested_absmax.bytes() + first_block.bytes() + offset.bytes();
}

void Nf4Weight::load(Backend& backend, size_t part, const Nf4Slice& rows) {
  const Part& p = parts_.at(part);
  require(rows.rounding == rounding && rows.cols == in() && rows.col == col_ && rows.whole_cols == whole_cols_ &&
              rows.row >= p.row && rows.row + rows.rows <= p.row + p.rows && (rows.absmax.empty() || !nested()),
          "an NF4 weight is loaded with rows of its own scaling");
  const int64_t at = rows_above(parts_, part) + rows.row - p.row;
  backend.upload(rows.codes.data(), codes.rows_from(at, rows.rows));
  if (!nested()) {
    const std::vector<float> plain = rows.absmax.empty() ? absmax_of(rows) : rows.absmax;
    return backend.upload(plain.data(), absmax.rows_from(at, rows.rows));
  }
  const BlockRange own = blocks_of(rows.row, rows.rows, col_, in(), whole_cols_);
  const int64_t runs = runs_above(parts_, part, col_, in(), whole_cols_);
  const int64_t first_run = blocks_of(p.row, p.rows, col_, in(), whole_cols_).first_run();
  require(host_levels_.empty() || host_levels_ == rows.levels,
          "the parts of an NF4 weight have the same levels of absmax");
  if (host_levels_.empty()) backend.upload(rows.levels.data(), levels);
  host_levels_ = rows.levels;
  backend.upload(rows.absmax_codes.data(), absmax.rows_from(at, rows.rows));
  backend.upload(rows.nested.data(), nested_absmax.rows_from(runs + own.first_run() - first_run, own.runs()));
  std::vector<int32_t> blocks;
  for (int64_t i = 0; i < rows.rows; ++i) {
    const int64_t begin = blocks_of(rows.row + i, 1, col_, in(), whole_cols_).begin;
    blocks.push_back(static_cast<int32_t>(begin + (runs - first_run) * kNf4NestedBlock));
  }
  put(backend, blocks, first_block, at);
  const std::vector<float> offsets(static_cast<size_t>(rows.rows), rows.offset);
  backend.upload(offsets.data(), offset.rows_from(at, rows.rows));
}

std::unique_ptr<Weight> lay_out_quantised(Arena& arena, const WeightShape& shape) {
  if (shape.format == Format::fp8) return std::make_unique<Fp8Weight>(arena, shape);
  require(shape.format == Format::nf4, "a quantised weight is fp8 or nf4");
  return std::make_unique<Nf4Weight>(arena, shape);
}

}  // namespace drover
