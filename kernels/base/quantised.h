// Quantised weights on the host: codes and scales of a slice of a tensor, as files hold them or as they are made.
//   fp8  value(i,j) = rounded(e4m3(code(i,j)) · scale(block of i, block of j))
//   nf4  value(i,j) = rounded(level(code(i,j)) · absmax(i, j / 64)), see nf4.h
#pragma once
#include <cstdint>
#include <vector>

namespace drover {

// What the product of a code and its scale is rounded to before it multiplies: what the file's library keeps it in.
enum class Rounding : uint8_t { none, bf16, f16 };

// The size of the blocks that share a scale, counted from the tensor's first row and column. 0: all rows, all columns.
struct ScaleBlocks {
  int64_t rows = 0, columns = 0;
  bool operator==(const ScaleBlocks&) const = default;
};

// Rows [row, row + rows) and columns [col, col + cols) of a tensor.
struct Fp8Slice {
  int64_t row = 0, rows = 0, col = 0, cols = 0;
  ScaleBlocks blocks;
  Rounding rounding = Rounding::none;
  std::vector<uint8_t> codes;  // (rows, cols)
  std::vector<float> scales;   // one for each block that the slice touches: (blocks of rows, blocks of columns)
};

// The same of a tensor of whole_cols columns. Columns begin and end between blocks of 64.
struct Nf4Slice {
  int64_t row = 0, rows = 0, col = 0, cols = 0, whole_cols = 0;
  Rounding rounding = Rounding::none;
  std::vector<uint8_t> codes;         // (rows, cols / 2): the even column's in the upper half of the byte
  std::vector<float> absmax;          // (rows, cols / 64); empty with double quantisation, which has instead:
  std::vector<uint8_t> absmax_codes;  // (rows, cols / 64)
  std::vector<float> levels;          // 256: of the codes of absmax (nf4.h; files bring their own)
  std::vector<float> nested;          // of each run of 256 blocks of the whole tensor that the slice touches
  float offset = 0;
};

// Of a block counted from the tensor's beginning: n of size `block` touched by [begin, begin + count). block 0: one.
int64_t first_block(int64_t begin, int64_t block);
int64_t blocks_touched(int64_t begin, int64_t count, int64_t block);

// Of each block of the slice, whether it is double quantised or not.
std::vector<float> absmax_of(const Nf4Slice& slice);

float rounded(float value, Rounding rounding);
// Of two, and from 2⁻¹⁰⁰ to 2¹⁰⁰: a code times such a scale is exact, also in bf16.
bool is_moderate_power(float scale);
// Every value of a slice into `out` (rows, cols): the reference of all products with such weights.
void dequantise(const Fp8Slice& slice, float* out);
void dequantise(const Nf4Slice& slice, float* out);

}  // namespace drover
