// The inner loops of RowProduct. `sums` (rows, width) f32 at a pitch hold the chains so far and are continued:
// sums[t][o] += Σ_i x[t][i]·w[o][i], i rising. x and w are rows of k values at a pitch.
#pragma once
#include <cstdint>

#include "kernels/base/bf16.h"

namespace drover::cpu {

inline constexpr int64_t kPanel = 64;  // outputs that a packed panel has: the pitch of its sums

template <typename T>
struct Rows {
  const T* data = nullptr;
  int64_t pitch = 0;
  const T* row(int64_t i) const { return data + i * pitch; }
  Rows from(int64_t i) const { return {row(i), pitch}; }
};

// One fused multiply-add at a time; w is f32 or bf16, widened.
namespace chain {
inline constexpr int64_t kFewRows = 4;  // that `few_rows` takes
inline constexpr int64_t kGroup = 8;    // outputs that it takes
inline constexpr int64_t kDepth = 512;  // of a packed panel
inline constexpr int64_t kPanelBytes = kPanel * kDepth * 4;
template <typename W>
void few_rows(int64_t rows, Rows<float> x, Rows<W> w, int64_t outputs, int64_t k, float* sums, int64_t pitch);
template <typename W>
void pack(Rows<W> w, int64_t outputs, int64_t k, void* panel);  // kPanel outputs, those beyond `outputs` zero
void packed(int64_t rows, Rows<float> x, const void* panel, int64_t k, float* sums);
}  // namespace chain

// Two bf16 products at a time (VDPBF16PS): only where `available`.
namespace pairs {
inline constexpr int64_t kFewRows = 8;
inline constexpr int64_t kGroup = 16;
inline constexpr int64_t kDepth = 1024;
inline constexpr int64_t kPanelBytes = kPanel * kDepth * 2;
void few_rows(int64_t rows, Rows<bf16> x, Rows<bf16> w, int64_t outputs, int64_t k, float* sums, int64_t pitch);
void pack(Rows<bf16> w, int64_t outputs, int64_t k, void* panel);
void packed(int64_t rows, Rows<bf16> x, const void* panel, int64_t k, float* sums);
}  // namespace pairs

}  // namespace drover::cpu
