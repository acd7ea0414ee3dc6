// AVX2: eight numbers at a time, bf16 widened.
#include "kernels/cpu/attention_backward.h"
#include "kernels/cpu/attention_forward.h"

namespace drover::cpu::avx2 {

namespace {

struct Set {
  using V = Vec;
  static constexpr int64_t kLanes = 8, kPair = 1, kBlock = 2;  // kBlock: vectors of a product's row at a time

  static V all(float v) { return _mm256_set1_ps(v); }
  static V load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, V v) { _mm256_storeu_ps(p, v); }
  static V add(V a, V b) { return _mm256_add_ps(a, b); }
  static V subtract(V a, V b) { return _mm256_sub_ps(a, b); }
  static V multiply(V a, V b) { return _mm256_mul_ps(a, b); }
  static V multiply_add(V a, V b, V sum) { return _mm256_fmadd_ps(a, b, sum); }
  static V max(V a, V b) { return _mm256_max_ps(a, b); }  // b where one is NaN
  static float highest(V v) { return cpu::max(v); }
  static float sum(V v) { return cpu::sum(v); }
  // The first n lanes of v, and `other` in the rest.
  static V first(int64_t n, V v, float other) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const int64_t lanes = std::clamp<int64_t>(n, 0, kLanes);
    const __m256i in = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(lanes)), lane);
    return _mm256_blendv_ps(all(other), v, _mm256_castsi256_ps(in));
  }
  static void transpose(V (&rows)[kLanes]) { cpu::transpose(rows); }

  // 2ˣ for x ≤ 127 within 2 ulp: 2ⁿ·q(x - n), q of degree 6 (minimax on |r| ≤ ½, 2e-9). 0 below -126; NaN stays NaN.
  static V exp2(V x) {
    const V n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm256_sub_ps(x, n);
    V p = all(kExp2[6]);
    for (int i = 5; i >= 0; --i) p = _mm256_fmadd_ps(p, r, all(kExp2[i]));
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(_mm256_cmp_ps(x, all(-126), _CMP_LT_OQ), _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
  }

  static void store_operand(const V (&row)[kTile / kLanes], float* to) {
#pragma GCC unroll 8
    for (int64_t v = 0; v < kTile / kLanes; ++v) store(to + v * kLanes, row[v]);
  }
  template <typename T>
  static void load_head(const T* from, int64_t e, int64_t row, float* to) {
    map_row(
        e, [](Vec v) { return v; }, to, from);
    std::fill(to + e, to + row, 0.0f);
  }
  template <typename T>
  static float dot(const T* a, const T* b, int64_t e) {
    V total = all(0);
    int64_t i = 0;
    for (; i + kLanes <= e; i += kLanes) total = multiply_add(cpu::load(a + i), cpu::load(b + i), total);
    float rest = 0;
    for (; i < e; ++i) rest += load_one(a + i) * load_one(b + i);
    return cpu::sum(total) + rest;
  }
};

}  // namespace

template <typename T>
void attention_forward(const AttentionForward& call, const ForwardTask& task) {
  Forward<Set, T>(call, task).run();
}
template <typename T>
void attention_backward(const AttentionBackward& call, const BackwardTask& task) {
  backward<Set, T>(call, task);
}

template void attention_forward<float>(const AttentionForward&, const ForwardTask&);
template void attention_forward<bf16>(const AttentionForward&, const ForwardTask&);
template void attention_backward<float>(const AttentionBackward&, const BackwardTask&);
template void attention_backward<bf16>(const AttentionBackward&, const BackwardTask&);

}  // namespace drover::cpu::avx2
