// AVX2 and FMA: sixteen lanes are two vectors.
#include <array>
#include <bit>

#include "kernels/cpu/dequantise_lanes.h"
#include "kernels/cpu/row_tile.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu::avx2 {

namespace {

template <typename Row>
struct Widened;

// As load_fp8, by way of memory: from there halves are converted without a shuffle.
template <Scales scales>
struct Widened<Fp8Row<scales>> {
  alignas(32) uint16_t halves[kCodedBlock];
  Vec scale;
  void begin_block(const Fp8Row<scales>& row, int64_t i, int64_t block) {
    const uint8_t* codes = row.codes + i;
    ask_for(codes);
    scale = scale_of_fp8(row.scales[block]);
#pragma GCC unroll 4
    for (int64_t at = 0; at < kCodedBlock; at += 2 * kLanes) {
      const __m128i sixteen = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + at));
      _mm256_store_si256(reinterpret_cast<__m256i*>(halves + at), halves_of_fp8(sixteen));
    }
    asm("" : "+m"(halves));  // keeps them from being taken out of the registers after all
  }
  Vec load(int v) const {
    const Vec value =
        _mm256_mul_ps(_mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(halves + v * kLanes))), scale);
    return scales == Scales::rounded ? rounded_to_bf16(value) : value;
  }
};

alignas(32) constexpr auto kNf4LevelBytes = [] {
  std::array<std::array<uint8_t, 32>, 4> bytes{};
  for (size_t byte = 0; byte < bytes.size(); ++byte) {
    for (size_t i = 0; i < bytes[byte].size(); ++i) {
      bytes[byte][i] = static_cast<uint8_t>(std::bit_cast<uint32_t>(kNf4Levels[i % 16]) >> 8 * byte);
    }
  }
  return bytes;
}();

// Sixteen numbers' lowest bytes, then their second ones, …: those of all in both halves of a vector.
struct Nf4Bytes {
  __m256i of[4];
  Nf4Bytes() {  // of the levels
    for (size_t byte = 0; byte < 4; ++byte) {
      of[byte] = _mm256_load_si256(reinterpret_cast<const __m256i*>(kNf4LevelBytes[byte].data()));
    }
  }
  Nf4Bytes(Vec first_eight, Vec last_eight) {
    const __m256i by_byte =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m256i lower = _mm256_shuffle_epi8(_mm256_castps_si256(first_eight), by_byte),
                  upper = _mm256_shuffle_epi8(_mm256_castps_si256(last_eight), by_byte);
    const __m256i first = _mm256_unpacklo_epi32(lower, upper), last = _mm256_unpackhi_epi32(lower, upper);
    const __m256i even = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5), odd = _mm256_setr_epi32(2, 6, 3, 7, 2, 6, 3, 7);
    of[0] = _mm256_permutevar8x32_epi32(first, even), of[1] = _mm256_permutevar8x32_epi32(first, odd);
    of[2] = _mm256_permutevar8x32_epi32(last, even), of[3] = _mm256_permutevar8x32_epi32(last, odd);
  }
};

// A whole block in the order of kNf4Order256. The levels are looked up byte by byte: multiplied and rounded, or, where
// nothing is rounded, as they are, which takes no shuffles for each block.
template <bool narrow>
struct Widened<Nf4Row<narrow>> {
  Nf4Bytes bytes;
  Vec absmax;
  __m256i codes[2];  // the upper ones of the block's bytes, the lower ones
  void begin_block(const Nf4Row<narrow>& row, int64_t i, int64_t block) {
    absmax = _mm256_set1_ps(row.absmax[block]);
    if constexpr (narrow) {
      const Nf4Lanes lanes(row.absmax[block]);
      bytes = Nf4Bytes(rounded_to_bf16(lanes.lower), rounded_to_bf16(lanes.upper));
    }
    ask_for(row.codes + i / 2);
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row.codes + i / 2));
    const __m256i four_bits = _mm256_set1_epi8(15);
    codes[0] = _mm256_and_si256(_mm256_srli_epi16(both, 4), four_bits), codes[1] = _mm256_and_si256(both, four_bits);
  }
  Vec load(int v) const {
    const auto words = [&](int byte) {  // two bytes of eight values
      const __m256i low = _mm256_shuffle_epi8(bytes.of[byte], codes[v / 4]),
                    high = _mm256_shuffle_epi8(bytes.of[byte + 1], codes[v / 4]);
      return v % 4 < 2 ? _mm256_unpacklo_epi8(low, high) : _mm256_unpackhi_epi8(low, high);
    };
    const __m256i low = words(0), high = words(2);
    const Vec value =
        _mm256_castsi256_ps(v % 2 == 0 ? _mm256_unpacklo_epi16(low, high) : _mm256_unpackhi_epi16(low, high));
    return narrow ? value : _mm256_mul_ps(value, absmax);
  }
};

struct Set {
  using X = float;
  using Operand = Vec;
  using Sum = Vec;
  static constexpr int64_t kValues = kLanes;
  static constexpr int kVectors = 2;
  static constexpr int kChains = 8;
  template <typename Row>
  using Widened = avx2::Widened<Row>;
  static Sum zero() { return _mm256_setzero_ps(); }
  template <typename T>
  static Operand load(const T* p) {
    return cpu::load(p);
  }
  template <typename T>
  static Operand load_some(const T* p, int64_t n) {
    alignas(32) float values[kLanes] = {};
    for (int64_t i = 0; i < n; ++i) values[i] = load_one(p + i);
    return cpu::load(values);
  }
  static void store(float* to, Operand v) { cpu::store(to, v); }
  static Sum multiply_add(Operand x, Operand w, Sum sum) { return _mm256_fmadd_ps(x, w, sum); }
  static __m256 fold(const Sum (&part)[kVectors]) { return _mm256_add_ps(part[0], part[1]); }
};

// turned[i·8 + j] = the number i of row j, of which the last is repeated where there are fewer than eight.
template <typename W>
void turn(const Rows<W>& w, int64_t rows, int64_t k, float* turned) {
  const auto row = [&](int64_t j) { return w.row(std::min(j, rows - 1)); };
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    Vec block[kLanes];
#pragma GCC unroll 8
    for (int64_t j = 0; j < kLanes; ++j) block[j] = load(row(j) + i);
    transpose(block);
#pragma GCC unroll 8
    for (int64_t j = 0; j < kLanes; ++j) store(turned + (i + j) * kLanes, block[j]);
  }
  for (; i < k; ++i) {
    for (int64_t j = 0; j < kLanes; ++j) turned[i * kLanes + j] = load_one(row(j) + i);
  }
}

// The sums of R rows, whose chains run side by side, and at most eight outputs.
template <int R>
struct Thin {
  template <typename W>
  static void add(const RowsTimesRows<float, W>& p, const float* turned) {
    Vec chains[R];
    for (Vec& chain : chains) chain = _mm256_setzero_ps();
    for (int64_t i = 0; i < p.k; ++i) {
      const Vec weights = load(turned + i * kLanes);
#pragma GCC unroll 4
      for (int t = 0; t < R; ++t) chains[t] = _mm256_fmadd_ps(_mm256_set1_ps(p.x.row(t)[i]), weights, chains[t]);
    }
    for (int t = 0; t < R; ++t) {
      alignas(32) float sums[kLanes];
      store(sums, chains[t]);
      float* to = p.sums + t * p.pitch;
      map_row(
          p.outputs, [](Vec a, Vec b) { return _mm256_add_ps(a, b); }, to, to, sums);
    }
  }
};

template <int R>
using Cached = CachedTile<Set, R, 2>;
template <int R>
using Streamed = StreamedTile<Set, R>;

}  // namespace

template <typename W>
void add_thin(const RowsTimesRows<float, W>& p) {
  alignas(32) float turned[kThin * kLanes];
  for (int64_t o = 0; o < p.outputs; o += kLanes) {
    const int64_t n = std::min(kLanes, p.outputs - o);
    turn(p.w.from(o), n, p.k, turned);
    add_turned<Thin>(p.part(0, p.rows, o, n), turned);
  }
}
template void add_thin(const RowsTimesRows<float, float>&);
template void add_thin(const RowsTimesRows<float, bf16>&);

void add_cached(const RowsTimesRows<float, float>& p) { add_tiles_along_x<Cached, 3>(p); }

template <typename WRows>
void add_streamed(const Streams<float, WRows>& p) {
  add_tiles_along_w<Streamed, 4>(p);
}
template void add_streamed(const Streams<float, Rows<float>>&);
template void add_streamed(const Streams<float, Rows<bf16>>&);
template void add_streamed(const Streams<float, Fp8Rows<Scales::any>>&);
template void add_streamed(const Streams<float, Fp8Rows<Scales::rounded>>&);
template void add_streamed(const Streams<float, Fp8Rows<Scales::powers>>&);
template void add_streamed(const Streams<float, Nf4Rows<false>>&);
template void add_streamed(const Streams<float, Nf4Rows<true>>&);

template <typename WRows>
void widen(const WRows& w, int64_t rows, int64_t k, float* to, int64_t pitch) {
  widen_rows<Set>(w, rows, k, to, pitch);
}
template void widen(const Fp8Rows<Scales::any>&, int64_t, int64_t, float*, int64_t);
template void widen(const Fp8Rows<Scales::rounded>&, int64_t, int64_t, float*, int64_t);
template void widen(const Fp8Rows<Scales::powers>&, int64_t, int64_t, float*, int64_t);
template void widen(const Nf4Rows<false>&, int64_t, int64_t, float*, int64_t);
template void widen(const Nf4Rows<true>&, int64_t, int64_t, float*, int64_t);

}  // namespace drover::cpu::avx2
