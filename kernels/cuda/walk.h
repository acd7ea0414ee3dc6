// How pointwise kernels go over the rows of a matrix: one pack of a row a thread. A wide row takes several blocks,
// several narrow rows share one.
#pragma once
#include "kernels/cuda/device.h"

namespace drover::cuda {

inline constexpr int kWalkThreads = 256;

struct Walk {
  int64_t rows = 0, packs = 0;  // packs of a row
  int lane_bits = 0;            // 2^lane_bits threads stand side by side in a row
  unsigned chunks = 1;          // blocks of a row
  unsigned grid = 0;
};

inline Walk walk(int64_t rows, int64_t packs) {
  Walk w{.rows = rows, .packs = packs};
  while (1 << w.lane_bits < kWalkThreads && int64_t{1} << w.lane_bits < packs) ++w.lane_bits;
  w.chunks = grid_of(std::max<int64_t>(packs, 1), int64_t{1} << w.lane_bits);
  w.grid = packs == 0 ? 0 : grid_of(grid_of(rows, kWalkThreads >> w.lane_bits) * int64_t{w.chunks});
  return w;
}

struct Spot {
  int64_t row, pack;
  bool inside;
};
__device__ inline Spot spot_of(const Walk& w) {
  const unsigned lanes = 1u << w.lane_bits, group = blockIdx.x / w.chunks, chunk = blockIdx.x % w.chunks;
  const int64_t row = int64_t{group} * (kWalkThreads >> w.lane_bits) + (threadIdx.x >> w.lane_bits);
  const int64_t pack = int64_t{chunk} * lanes + (threadIdx.x & (lanes - 1));
  return {row, pack, row < w.rows && pack < w.packs};
}

// A contiguous tensor as one row.
inline Tensor flat(Tensor t) {
  require(t.contiguous() || t.cols == 0, "a flat view of a pitched tensor");
  t.cols = t.pitch = t.size();
  t.rows = 1;
  return t;
}
// What treats every element alike may take contiguous tensors as one row.
inline void flatten(Tensor& x, Tensor& y) {
  if (!x.contiguous() || !y.contiguous()) return;
  x = flat(x);
  y = flat(y);
}

}  // namespace drover::cuda
