// Products of many rows for generation with AVX2, by outer products. A vector holds eight outputs, so that one number
// of x meets sixteen weights in two of them; the sixteen lanes of an output's sum are computed one after the other and
// added in the tree of row_kernels.h.
#include "kernels/cpu/row_tile.h"
#include "kernels/cpu/vectors_avx2.h"

namespace drover::cpu::avx2 {

namespace {

constexpr int64_t kOutputs = 2 * kLanes;  // of a tile
constexpr int64_t kSumLanes = 16;

int64_t turns_of(int64_t k) { return (k + kSumLanes - 1) / kSumLanes; }  // numbers of a lane, at most

// packed[lane][turn][output] = the number turn·16 + lane of an output; the last output stands for those that are not
// there.
template <typename W>
void pack(const Rows<W>& w, int64_t outputs, int64_t k, float* packed) {
  const int64_t turns = turns_of(k);
  for (int64_t o = 0; o < kOutputs; o += kLanes) {
    constexpr int64_t kAtOnce = Vectors256::kAtOnce<W>;
    for (int64_t i = 0; i < k; i += kAtOnce) {
      Vec block[kLanes];
#pragma GCC unroll 8
      for (int64_t j = 0; j < kLanes; ++j)
        block[j] = Vectors256::at_once(w.row(std::min(o + j, outputs - 1)) + i, k - i);
      transpose(block);
      float* to = packed + (i % kSumLanes * turns + i / kSumLanes) * kOutputs + o;
#pragma GCC unroll 16
      for (int64_t j = 0; j < kAtOnce; ++j) store(to + j * turns * kOutputs, Vectors256::number<W>(block, j));
    }
  }
}

// What a tile multiplies, its weights packed.
struct Packed {
  int64_t outputs, k;
  Rows<float> x;
  const float* weights;
  float* sums;
  int64_t pitch;  // of sums
};

template <int R>
struct PackedTile {
  static constexpr int kSums = 2 * R;

  // One lane of the sums, a chain of fused multiply-adds, to which those of other lanes in front of `to` are added.
  // A function of its own, so that the sums stay in registers.
  [[gnu::noinline]] static void sum_lane(const Packed& p, int64_t lane, const Vec* others, Vec* to) {
    Vec sums[R][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_ps();
    const float *x = p.x.data + lane, *w = p.weights + lane * turns_of(p.k) * kOutputs;
    const int64_t n = (p.k - lane + kSumLanes - 1) / kSumLanes;
#pragma GCC unroll 4
    for (int64_t turn = 0; turn < n; ++turn, x += kSumLanes, w += kOutputs) {
      const Vec low = load(w), high = load(w + kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Vec number = _mm256_set1_ps(x[r * p.x.pitch]);
        sums[r][0] = _mm256_fmadd_ps(number, low, sums[r][0]);
        sums[r][1] = _mm256_fmadd_ps(number, high, sums[r][1]);
      }
    }
    for (; others < to; others += kSums) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        sums[r][0] = _mm256_add_ps(others[2 * r], sums[r][0]);
        sums[r][1] = _mm256_add_ps(others[2 * r + 1], sums[r][1]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) to[2 * r] = sums[r][0], to[2 * r + 1] = sums[r][1];
  }

  static void add(const Packed& p) {
    // The first: of one lane. The others: of one, two, four and eight pairs of lanes l and l + 8, each added to what it
    // completes, as in a counter of binary digits.
    Vec parts[5][kSums];
    for (int64_t l = 0; l < kLanes; ++l) {
      sum_lane(p, l, parts[0], parts[0]);
      int level = 1;
      for (int64_t left = l; left % 2 == 1; left /= 2) ++level;
      sum_lane(p, l + kLanes, parts[0], parts[level]);
    }
    for (int r = 0; r < R; ++r) add_outputs(parts[4] + 2 * r, p.outputs, p.sums + r * p.pitch);
  }

  static void add_outputs(const Vec* sums, int64_t outputs, float* to) {
    if (outputs == kOutputs) {
      store(to, _mm256_add_ps(load(to), sums[0]));
      store(to + kLanes, _mm256_add_ps(load(to + kLanes), sums[1]));
      return;
    }
    alignas(32) float values[kOutputs];
    store(values, sums[0]);
    store(values + kLanes, sums[1]);
    for (int64_t o = 0; o < outputs; ++o) to[o] += values[o];
  }
};

}  // namespace

template <typename W>
void add_packed(const RowsTimesRows<float, W>& p, float* packed) {
  constexpr int kRows = 6;
  const int64_t group = turns_of(p.k) * kSumLanes * kOutputs;
  for (int64_t o = 0; o < p.outputs; o += kOutputs)
    pack(p.w.from(o), std::min(kOutputs, p.outputs - o), p.k, packed + o / kOutputs * group);
  for (int64_t t = 0; t < p.rows; t += kRows) {
    for (int64_t o = 0; o < p.outputs; o += kOutputs) {
      add_tile<PackedTile, kRows>(p.rows - t, Packed{std::min(kOutputs, p.outputs - o), p.k, p.x.from(t),
                                                     packed + o / kOutputs * group, p.sums + t * p.pitch + o, p.pitch});
    }
  }
}
template void add_packed(const RowsTimesRows<float, float>&, float*);
template void add_packed(const RowsTimesRows<float, bf16>&, float*);

}  // namespace drover::cpu::avx2
