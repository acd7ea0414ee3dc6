// What attention's files share whatever the instruction set is: the size of tiles, the mask, a thread's scratch.
#pragma once
#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>

#include "kernels/backend.h"
#include "kernels/cpu/lines.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu {

inline constexpr int64_t kTile = 64;                          // queries, and keys
inline constexpr int64_t kLine = kLineBytes / sizeof(float);  // as many are in the widest vector
inline constexpr int64_t kOnePassFloats = int64_t{4} << 20;   // of dq in a thread's scratch, at most
// Of a KV head's dq whose halves two threads compute; in the memory of pieces.
inline constexpr int64_t kHalvesFloats = int64_t{7} << 18;
// Of a thread, with so many rows: tiles, a KV head's dq of eight heads of 128, and its share of a dq in halves.
int64_t attention_scratch_bytes(int64_t rows);
inline constexpr int64_t kPiecesFloats = int64_t{4} << 20;  // for what several threads compute: pieces of keys, halves
inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
inline constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// 2^r = Σ kExp2[i]·rⁱ for |r| ≤ ½, minimax (2e-9).
inline constexpr float kExp2[] = {1.000000001f,    6.931472057e-1f, 2.402264689e-1f, 5.550328777e-2f,
                                  9.618488957e-3f, 1.339993122e-3f, 1.534581192e-4f};

inline int64_t whole_lines(int64_t floats) { return (floats + kLine - 1) / kLine * kLine; }

// The scratch of the calling thread, cut into pieces that begin on cache lines. It grows to what a task needs and
// stays; a thread uses one at a time.
class TileBuffers {
 public:
  explicit TileBuffers(std::initializer_list<int64_t> floats);
  float* operator[](size_t piece) const { return pieces_[piece]; }

 private:
  static constexpr size_t kMost = 16;
  float* pieces_[kMost];
};

// An operand of a product at data[i·row + l·col], in words (attention_tile.h).
struct Strided {
  const float* data;
  int64_t row, col;
  Strided from(int64_t i) const { return {data + i * row, row, col}; }
};
struct Words {  // rows of an operand
  const float* data;
  int64_t pitch;
  Words at(int64_t column) const { return {data + column, pitch}; }
};
struct Sums {
  float* data;
  int64_t pitch;
  Sums at(int64_t column) const { return {data + column, pitch}; }
  Sums from(int64_t row) const { return {data + row * pitch, pitch}; }
};
struct WordRange {
  int64_t begin, end;
};

// How many keys of the tile [k_begin, k_begin + k_count) a query sees: j <= query + offset.
inline int64_t visible(const Segment& s, int64_t query, int64_t k_begin, int64_t k_count) {
  return std::clamp<int64_t>(query + s.offset - k_begin + 1, 0, k_count);
}

inline int64_t key_row(const Segment& s, const KvView& kv, int64_t position) {
  if (s.block_table == nullptr) return s.k0 + position;
  return s.block_table[position / kv.block_size] * kv.block_size + position % kv.block_size;
}

// The same of n positions that follow each other.
inline void key_rows(const Segment& s, const KvView& kv, int64_t position, int64_t n, int64_t* rows) {
  for (int64_t j = 0; j < n;) {
    const int64_t in_block = s.block_table == nullptr ? n - j : kv.block_size - (position + j) % kv.block_size;
    const int64_t end = std::min(n, j + in_block);
    for (int64_t row = key_row(s, kv, position + j); j < end; ++j) rows[j] = row++;
  }
}

// to[j] = factor·from[j] for the e numbers of a head.
template <typename T>
void write_head(const float* from, int64_t e, float factor, T* to) {
  const Vec f = _mm256_set1_ps(factor);
  map_row(
      e, [&](Vec v) { return _mm256_mul_ps(v, f); }, to, from);
}

}  // namespace drover::cpu
