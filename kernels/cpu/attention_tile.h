// What attention's forward and backward share: widening rows into padded fp32 tiles, transposing them, the mask, and a
// thread's scratch.
#pragma once
#include <algorithm>
#include <initializer_list>
#include <limits>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu {

inline constexpr int64_t kTile = 64;
inline constexpr int64_t kOnePassFloats = int64_t{4} << 20;  // of dq in a thread's scratch, at most
inline constexpr int64_t kAttentionScratchBytes =
    kOnePassFloats * 4 + (int64_t{2} << 20);  // with the tiles of 16 heads of 128
inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

inline int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// The scratch of one thread, cut into pieces; it grows to what a task needs and stays.
class TileBuffers {
 public:
  explicit TileBuffers(std::initializer_list<int64_t> floats) {
    thread_local std::vector<float> held;
    int64_t total = 0;
    for (const int64_t n : floats) {
      offsets_.push_back(total);
      total += padded(n);
    }
    if (static_cast<int64_t>(held.size()) < total) held = std::vector<float>(static_cast<size_t>(total));
    data_ = held.data();
  }
  float* operator[](size_t piece) const { return data_ + offsets_[piece]; }

 private:
  float* data_ = nullptr;
  std::vector<int64_t> offsets_;
};

// to[i·ld + j] = factor·data[row(i), column + j] for `rows` rows of e columns, zero-padded to ld columns.
template <typename T, typename Row>
void load_tile(const T* data, int64_t pitch, int64_t column, int64_t rows, int64_t e, int64_t ld, float factor,
               float* to, Row&& row) {
  const Vec f = _mm256_set1_ps(factor);
  for (int64_t i = 0; i < rows; ++i) {
    float* out = to + i * ld;
    map_row(
        e, [&](Vec v) { return _mm256_mul_ps(v, f); }, out, data + row(i) * pitch + column);
    for (int64_t j = e; j < ld; ++j) out[j] = 0;
  }
}

// to (ld × 64) = fromᵀ with `rows` rows of ld columns, a multiple of 8; columns at and beyond `rows` are zero.
inline void transpose_tile(const float* from, int64_t rows, int64_t ld, float* to) {
  for (int64_t i = 0; i < kTile; i += kLanes) {
    for (int64_t j = 0; j < ld; j += kLanes) {
      Vec block[kLanes];
      for (int64_t r = 0; r < kLanes; ++r)
        block[r] = i + r < rows ? load(from + (i + r) * ld + j) : _mm256_setzero_ps();
      transpose(block);
      for (int64_t r = 0; r < kLanes; ++r) store(to + (j + r) * kTile + i, block[r]);
    }
  }
}

// How many keys of the tile [k_begin, k_begin + k_count) a query sees: j <= query + offset.
inline int64_t visible(const Segment& s, int64_t query, int64_t k_begin, int64_t k_count) {
  return std::clamp<int64_t>(query + s.offset - k_begin + 1, 0, k_count);
}

}  // namespace drover::cpu
