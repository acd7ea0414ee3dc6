// AVX-512-BF16: products of bf16 numbers two at a time (VDPBF16PS), sums and softmax in fp32.
#include "kernels/cpu/attention_common.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/intrinsics.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

#include "kernels/cpu/attention_backward.h"
#include "kernels/cpu/attention_forward.h"
#include "kernels/cpu/vectors_avx512_bf16.h"

namespace drover::cpu::avx512_bf16 {

namespace {

struct Set : PairsOfBf16 {};

}  // namespace

void attention_forward(const AttentionForward& call, const ForwardTask& task) { forward<Set, bf16>(call, task); }
void attention_backward(const AttentionBackward& call, const BackwardTask& task) { backward<Set, bf16>(call, task); }

}  // namespace drover::cpu::avx512_bf16

#pragma GCC pop_options
