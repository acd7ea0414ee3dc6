// The inner loops of RowProduct. All mean the same:
//   sums[t][o] += Σ_i x[t][i]·w[o][i]
// in an order that depends on k only, neither on the number of rows or outputs nor on an address: the sum's index is
// cut into blocks of `kDepth`; in a block lane l of sixteen adds up the products of i = l, l + 16, l + 32, … (bf16: of
// the pairs of such numbers) in rising order, the lanes are added in a fixed tree, and the result to sums. A code
// multiplies as its value, which has its scale.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>

#include "kernels/base/bf16.h"
#include "kernels/cpu/coded_rows.h"

namespace drover::cpu {

template <typename T>
struct Rows {
  const T* data = nullptr;
  int64_t pitch = 0;
  const T* row(int64_t i) const { return data + i * pitch; }
  Rows from(int64_t row) const { return {data + row * pitch, pitch}; }
  Rows at(int64_t column) const { return {data + column, pitch}; }
};

template <typename T>
[[gnu::always_inline]] inline const T* from(const T* row, int64_t i) {
  return row + i;
}

template <typename X, typename WRows>
struct RowsTimes {
  int64_t rows, outputs, k;
  Rows<X> x;
  WRows w;
  float* sums;
  int64_t pitch;  // of sums
  // Of its rows and outputs from these on, at most so many.
  RowsTimes part(int64_t row, int64_t most_rows, int64_t output, int64_t most_outputs) const {
    return {std::min(most_rows, rows - row),
            std::min(most_outputs, outputs - output),
            k,
            x.from(row),
            w.from(output),
            sums + row * pitch + output,
            pitch};
  }
};

template <typename X, typename W>
using RowsTimesRows = RowsTimes<X, Rows<W>>;

// Products with the same x, side by side: from memory, four streams of weights come faster than one. None has more
// outputs than the first; the others may have none.
inline constexpr int kStreams = 4;
template <typename X, typename WRows>
using Streams = std::array<RowsTimes<X, WRows>, kStreams>;

// Sums of at most so many products, as low-rank terms have: there every lane is an output, which has one chain of fused
// multiply-adds in rising order (bf16: of pairs), and is added to sums once.
inline constexpr int64_t kThin = 64;

// One fused multiply-add at a time; w is f32 or bf16, widened. The two sets give the same bits.
namespace avx2 {
template <typename W>
void add_thin(const RowsTimesRows<float, W>& p);        // k <= kThin
void add_cached(const RowsTimesRows<float, float>& p);  // k <= kDepth
// The same, faster for many rows; w is f32 or bf16. It is copied to `packed`, which has room for kDepth numbers of each
// output and of those that are missing to a multiple of sixteen.
template <typename W>
void add_packed(const RowsTimesRows<float, W>& p, float* packed);
// Codes are widened in registers.
template <typename WRows>
void add_streamed(const Streams<float, WRows>& p);
// The values of codes that add_streamed multiplies; NF4's in the order of kNf4Order256.  k: a multiple of kCodedBlock
template <typename WRows>
void widen(const WRows& w, int64_t rows, int64_t k, float* to, int64_t pitch);
}  // namespace avx2
namespace avx512 {
void add_thin(const RowsTimesRows<float, bf16>& p);
void add_cached(const RowsTimesRows<float, float>& p);
// As above; codes in the orders of kFp8Order512, kFp8PowersOrder512 and kNf4Order512.
template <typename WRows>
void add_streamed(const Streams<float, WRows>& p);
template <typename WRows>
void widen(const WRows& w, int64_t rows, int64_t k, float* to, int64_t pitch);
}  // namespace avx512
namespace avx512_gfni {  // the same bits
template <Scales scales>
void add_streamed(const Streams<float, Fp8Rows<scales>>& p);
}  // namespace avx512_gfni

// Two products at a time (VDPBF16PS).
namespace avx512_bf16 {
void add_thin(const RowsTimesRows<bf16, bf16>& p);
void add_cached(const RowsTimesRows<bf16, bf16>& p);
void add_streamed(const Streams<bf16, Rows<bf16>>& p);
}  // namespace avx512_bf16

// Of a sum's index, at once: 3 KiB of a row, so that what a tile reads stays in the first-level cache.
template <typename X>
inline constexpr int64_t kDepth = 3072 / sizeof(X);

}  // namespace drover::cpu
