// AVX2: eight numbers at a time, bf16 widened.
#include "kernels/cpu/attention_backward.h"
#include "kernels/cpu/attention_forward.h"
#include "kernels/cpu/vectors_avx2.h"

namespace drover::cpu::avx2 {

namespace {

struct Set : Vectors256 {
  static constexpr int64_t kPair = 1;
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
};

}  // namespace

template <typename T>
void attention_forward(const AttentionForward& call, const ForwardTask& task) {
  forward<Set, T>(call, task);
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
