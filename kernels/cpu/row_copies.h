// Copies of rows as the products for generation read them: at a pitch that suits the cache, widened, in a code's order.
#pragma once
#include <cstring>

#include "kernels/cpu/coded_rows.h"
#include "kernels/cpu/lines.h"
#include "kernels/cpu/vector.h"
#include "kernels/tensor.h"

namespace drover::cpu {

// An odd number of lines: rows at such a distance do not share the sets of a cache.
inline int64_t copy_pitch(int64_t columns, DType type) {
  const int64_t lines = (columns * size_of(type) + kLineBytes - 1) / kLineBytes;
  return (lines | 1) * kLineBytes / size_of(type);
}

inline void copy_rows(Tensor from, Tensor to) {
  for (int64_t r = 0; r < from.rows; ++r) {
    if (from.dtype == to.dtype) {
      std::memcpy(to.rows_from(r, 1).data, from.rows_from(r, 1).data,
                  static_cast<size_t>(from.cols * size_of(from.dtype)));
    } else {
      map_row(
          from.cols, [](Vec v) { return v; }, to.as<float>() + r * to.pitch, from.as<bf16>() + r * from.pitch);
    }
  }
}

// to[place of i] = factor·from[i], block by block.
template <const CopyOrder& order>
void copy_in_order(const float* from, int64_t n, float* to) {
  for (int64_t begin = 0; begin < n; begin += kCodedBlock) {
#pragma GCC unroll 64
    for (int64_t i = 0; i < kCodedBlock; ++i) {
      to[begin + order.place[static_cast<size_t>(i)]] = order.factor * from[begin + i];
    }
  }
}

}  // namespace drover::cpu
