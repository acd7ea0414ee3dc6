// The CPU backend: own vector code, with oneDNN for bf16 matrices where a CPU multiplies them fast; OpenMP over rows.
// Results do not depend on the number of threads: every row, tile or block is computed by one thread, and sums over
// rows or keys in fixed blocks.
#pragma once
#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/fp8_product.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/lines.h"
#include "kernels/cpu/row_product.h"

namespace drover::cpu {

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(int threads);
  Memory& memory() override { return *memory_; }
  using Backend::workspace_bytes;
  int64_t workspace_bytes(int64_t rows) const override;
  std::unique_ptr<Weight> make_weight(Arena& arena, const WeightShape& shape) override;

 protected:
  DROVER_OPS(DROVER_KERNEL_OVERRIDE)
  void do_linear_of_parts(Tensor x, const Weight& w, std::span<const LinearPart> parts, bool accumulate,
                          Tensor y) override;

 private:
  std::unique_ptr<Memory> memory_;
  int threads_;
  Gemm gemm_;
  Fp8Product fp8_product_;
  RowProduct row_product_;
  Lines attention_pieces_;  // kPiecesFloats: pieces of keys forward, halves of dq backward
};

std::unique_ptr<Memory> make_host_memory();

// The elements of a dense weight.
inline Tensor values_of(const Weight& w) { return static_cast<const DenseWeight&>(w).values; }

// Calls f with a typed pointer to the tensor's data: float* or bf16*.
template <typename F>
void with_type(Tensor t, F&& f) {
  switch (t.dtype) {
    case DType::f32: return f(static_cast<float*>(t.data));
    case DType::bf16: return f(static_cast<bf16*>(t.data));
    default: require(false, "an op on floats was given another dtype");
  }
}

}  // namespace drover::cpu

namespace drover {

std::unique_ptr<Backend> make_cpu_backend(int threads);

}  // namespace drover
