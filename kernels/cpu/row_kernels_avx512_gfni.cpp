// AVX-512 with GFNI, which moves the bits of fp8's codes to where bf16 has them.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "kernels/cpu/intrinsics.h"
#include "kernels/cpu/row_kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,gfni")

#include "kernels/cpu/row_tile.h"
#include "kernels/cpu/row_vectors_avx512.h"

namespace drover::cpu::avx512_gfni {

namespace {

// For vgf2p8affineqb: bit i of a byte becomes bit `from[i]` of the code, or 0 where that is kNone.
constexpr int kNone = -1;
constexpr int64_t bits_from(const std::array<int, 8>& from) {
  uint64_t matrix = 0;
  for (size_t i = 0; i < 8; ++i) {
    if (from[i] != kNone) matrix |= uint64_t{1} << (8 * (7 - i) + static_cast<size_t>(from[i]));
  }
  return static_cast<int64_t>(matrix);
}
// The sign and the upper three bits of the exponent; its last one and the mantissa.
constexpr int64_t kUpper = bits_from({4, 5, 6, kNone, kNone, kNone, kNone, 7}),
                  kLower = bits_from({kNone, kNone, kNone, kNone, 0, 1, 2, 3});

template <uint8_t top>
struct Fp8Words {
  __m512i first, second;
  explicit Fp8Words(__m512i codes) {
    const __m512i high = _mm512_gf2p8affine_epi64_epi8(codes, _mm512_set1_epi64(kUpper), top),
                  low = _mm512_gf2p8affine_epi64_epi8(codes, _mm512_set1_epi64(kLower), 0);
    first = _mm512_unpacklo_epi8(low, high), second = _mm512_unpackhi_epi8(low, high);
  }
};

struct Set : Vectors16 {
  template <typename Row>
  struct Widened;
  template <Scales scales>
  struct Widened<Fp8Row<scales>> : Fp8Block<scales, Fp8Words> {};
};
template <int R>
using Streamed = StreamedTile<Set, R>;

}  // namespace

template <Scales scales>
void add_streamed(const Streams<float, Fp8Rows<scales>>& p) {
  add_tiles_along_w<Streamed, 4>(p);
}
template void add_streamed(const Streams<float, Fp8Rows<Scales::any>>&);
template void add_streamed(const Streams<float, Fp8Rows<Scales::rounded>>&);
template void add_streamed(const Streams<float, Fp8Rows<Scales::powers>>&);

}  // namespace drover::cpu::avx512_gfni

#pragma GCC pop_options
