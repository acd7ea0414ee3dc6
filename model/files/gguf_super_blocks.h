// GGUF's blocks of 256 weights, in parts that have scales (and minima) of their own. Layout: ggml's k-quants.
//   Q4_K, Q5_K: 8 parts of 32; weight = d·scale·q − dmin·min, scales and minima in 6 bits, q in 4 or 5 bits
//   Q6_K:      16 parts of 16; weight = d·scale·(q − 32), scales in 8 bits, q in 6 bits
#pragma once
#include <cstddef>
#include <cstdint>

namespace drover {

inline constexpr int64_t kSuperBlock = 256;  // weights
inline constexpr int64_t kQ4KBytes = 144, kQ5KBytes = 176, kQ6KBytes = 210;

// One block → 256 numbers.
void q4_k(const std::byte* block, float* out);
void q5_k(const std::byte* block, float* out);
void q6_k(const std::byte* block, float* out);

}  // namespace drover
