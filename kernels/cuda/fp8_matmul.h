// Products of e4m3 codes through cuBLASLt: c = x·wᵀ + beta·c, accumulated in fp32 and scaled as the operands say
// (fp8_operand.h). Its fast accumulation, which adds with fewer bits, stays off. An algorithm is the first of the
// heuristics', chosen once a shape.
#pragma once
#include <cublasLt.h>

#include <map>
#include <memory>

#include "kernels/cuda/fp8_operand.h"
#include "kernels/cuda/matmul.h"

namespace drover::cuda {

class Fp8Matmul {
 public:
  Fp8Matmul(const Matmul& matmul, cudaStream_t stream, bool deterministic);
  ~Fp8Matmul();

  // Whether c may be written as it lies: rows in multiples of 16, on 16-byte boundaries.
  static bool takes(Tensor c);
  // x (m, k), w (n, k) codes; c (m, n) f32 | bf16 that `takes` takes; beta 0 or 1. blocks: how both are scaled.
  void operator()(const Fp8Operand& x, const Fp8Operand& w, bool blocks, float beta, Tensor c);

 private:
  struct Key {
    bool blocks = false;
    int64_t m = 0, n = 0, k = 0, pitch_x = 0, pitch_w = 0, pitch_c = 0;
    DType out = DType::f32;
    auto operator<=>(const Key&) const = default;
  };
  struct Plan;
  Plan& plan(const Key& key);
  void choose(Plan& plan, const Key& key) const;

  const Matmul& matmul_;
  cudaStream_t stream_;
  bool deterministic_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace drover::cuda
