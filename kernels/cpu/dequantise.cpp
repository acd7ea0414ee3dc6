#include "kernels/cpu/dequantise.h"

#include <algorithm>

#include "kernels/cpu/dequantise_lanes.h"

namespace drover::cpu {

namespace {

template <typename Out>
void fp8_run(const uint8_t* codes, float scale, Roundings roundings, int64_t n, Out* to) {
  const Vec wide = scale_of_fp8(scale);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(to + j, rounded(load_fp8(codes + j, wide), roundings));
  if (j == n) return;
  uint8_t rest[kLanes] = {};
  std::copy_n(codes + j, n - j, rest);
  alignas(32) float out[kLanes];
  store(out, rounded(load_fp8(rest, wide), roundings));
  for (int64_t i = 0; j + i < n; ++i) store_one(to + j + i, out[i]);
}

template <typename Out>
void fp8_row(const uint8_t* codes, const RowScales& row, Roundings roundings, int64_t n, Out* to) {
  if (row.block == 0) return fp8_run(codes, row.scales[0], roundings, n, to);
  for (int64_t j = 0; j < n;) {
    const int64_t count = std::min(n - j, row.block - (row.phase + j) % row.block);
    fp8_run(codes + j, row.scales[(row.phase + j) / row.block], roundings, count, to + j);
    j += count;
  }
}

template <typename Out>
void nf4_row(const uint8_t* codes, const float* absmax, Roundings roundings, int64_t n, Out* to) {
  for (int64_t begin = 0; begin < n; begin += kNf4Block) {
    Nf4Lanes lanes(absmax[begin / kNf4Block]);
    lanes.lower = rounded(lanes.lower, roundings), lanes.upper = rounded(lanes.upper, roundings);
    for (int64_t j = begin; j < std::min(begin + kNf4Block, n); j += kLanes) store(to + j, lanes.load(codes + j / 2));
  }
}

template <typename F>
void with_floats(DType dtype, void* to, F&& f) {
  if (dtype == DType::f32) return f(static_cast<float*>(to));
  f(static_cast<bf16*>(to));
}

}  // namespace

void dequantise_fp8(const uint8_t* codes, const RowScales& scales, Roundings roundings, int64_t n, DType dtype,
                    void* to) {
  with_floats(dtype, to, [&](auto* out) { fp8_row(codes, scales, roundings, n, out); });
}

void dequantise_nf4(const uint8_t* codes, const float* absmax, Roundings roundings, int64_t n, DType dtype, void* to) {
  with_floats(dtype, to, [&](auto* out) { nf4_row(codes, absmax, roundings, n, out); });
}

}  // namespace drover::cpu
