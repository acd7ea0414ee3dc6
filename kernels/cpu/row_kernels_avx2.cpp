// AVX2 and FMA: sixteen lanes are two vectors.
#include "kernels/cpu/dequantise_lanes.h"
#include "kernels/cpu/row_tile.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu::avx2 {

namespace {

template <typename Row>
struct Widened;

template <bool narrow>
struct Widened<Fp8Row<narrow>> {
  Vec scale;
  void begin_block(const Fp8Row<narrow>& row, int64_t i) { scale = scale_of_fp8(row.scale(i)); }
  Vec load(const Fp8Row<narrow>& row, int64_t i) const {
    const Vec value = load_fp8(row.codes + i, scale);
    return narrow ? rounded_to_bf16(value) : value;
  }
};

template <bool narrow>
struct Widened<Nf4Row<narrow>> {
  Nf4Lanes lanes;
  void begin_block(const Nf4Row<narrow>& row, int64_t i) {
    lanes = Nf4Lanes(row.absmax[i / kNf4Block]);
    if constexpr (narrow) lanes.lower = rounded_to_bf16(lanes.lower), lanes.upper = rounded_to_bf16(lanes.upper);
  }
  Vec load(const Nf4Row<narrow>& row, int64_t i) const { return lanes.load(row.codes + i / 2); }
};

struct Set {
  using X = float;
  using Operand = Vec;
  using Sum = Vec;
  static constexpr int64_t kValues = kLanes;
  static constexpr int kVectors = 2;
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
  static Sum multiply_add(Operand x, Operand w, Sum sum) { return _mm256_fmadd_ps(x, w, sum); }
  static __m256 fold(const Sum (&part)[kVectors]) { return _mm256_add_ps(part[0], part[1]); }
};

template <int R>
using Cached = CachedTile<Set, R, 2>;
template <int R>
using Streamed = StreamedTile<Set, R>;

}  // namespace

template <typename W>
void add_thin(const RowsTimesRows<float, W>& p) {
  alignas(32) float turned[kThin * kLanes];  // of eight rows of w: their values of an index next to each other
  for (int64_t o = 0; o < p.outputs; o += kLanes) {
    const int64_t n = std::min(kLanes, p.outputs - o);
    for (int64_t j = 0; j < kLanes; ++j) {
      const W* row = p.w.row(o + std::min(j, n - 1));
      for (int64_t i = 0; i < p.k; ++i) turned[i * kLanes + j] = load_one(row + i);
    }
    for (int64_t t = 0; t < p.rows; ++t) {
      const float* x = p.x.row(t);
      Vec chain = _mm256_setzero_ps();
      for (int64_t i = 0; i < p.k; ++i) chain = _mm256_fmadd_ps(_mm256_set1_ps(x[i]), load(turned + i * kLanes), chain);
      alignas(32) float sums[kLanes];
      store(sums, chain);
      float* to = p.sums + t * p.pitch + o;
      for (int64_t j = 0; j < n; ++j) to[j] += sums[j];
    }
  }
}
template void add_thin(const RowsTimesRows<float, float>&);
template void add_thin(const RowsTimesRows<float, bf16>&);

void add_cached(const RowsTimesRows<float, float>& p) { add_tiles_along_x<Cached, 3>(p); }

template <typename WRows>
void add_streamed(const RowsTimes<float, WRows>& p, const RowsTimes<float, WRows>& q) {
  add_tiles_along_w<Streamed, 4>(p, q);
}
template void add_streamed(const RowsTimesRows<float, float>&, const RowsTimesRows<float, float>&);
template void add_streamed(const RowsTimesRows<float, bf16>&, const RowsTimesRows<float, bf16>&);
template void add_streamed(const RowsTimes<float, Fp8Rows<false>>&, const RowsTimes<float, Fp8Rows<false>>&);
template void add_streamed(const RowsTimes<float, Fp8Rows<true>>&, const RowsTimes<float, Fp8Rows<true>>&);
template void add_streamed(const RowsTimes<float, Nf4Rows<false>>&, const RowsTimes<float, Nf4Rows<false>>&);
template void add_streamed(const RowsTimes<float, Nf4Rows<true>>&, const RowsTimes<float, Nf4Rows<true>>&);

}  // namespace drover::cpu::avx2
