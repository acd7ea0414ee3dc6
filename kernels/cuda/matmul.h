// Matrix products through cuBLASLt: row-major tensors with pitches, bf16 or f32 inputs of one dtype, fp32 accumulation,
// bf16 or f32 output.
//   c = alpha·op(a)·op(b) + beta·c
// cuBLASLt is column-major: the product is asked for as cᵀ = alpha·op(b)ᵀ·op(a)ᵀ + beta·cᵀ with every tensor's pitch as
// leading dimension. An algorithm is chosen once a shape: from the tuned cache where it has the shape, else the first
// of cuBLASLt's heuristics. A large product that comes again and again is tuned once for the GPU and kept in the cache
// (a second or less each, which waits). Deterministic products are neither tuned nor taken from the cache, whose
// content may change between two runs.
#pragma once
#include <cublasLt.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/matmul_tuning.h"

namespace drover::cuda {

// What an algorithm may depend on. Alignment: of addresses and pitches in bytes, 256 at most.
struct MatmulKey {
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;  // c (m,n) row-major
  int64_t pitch_a = 0, pitch_b = 0, pitch_c = 0;
  DType in = DType::f32, out = DType::f32;
  bool accumulate = false;  // beta != 0
  int alignment = 256;
  auto operator<=>(const MatmulKey&) const = default;
};
MatmulKey matmul_key(Trans ta, Trans tb, Tensor a, Tensor b, float beta, Tensor c);
std::string text_of(const MatmulKey& key);  // one line, the key of the tuned cache

// The reduction schemes that a product may use whose sum is divided.
uint32_t matmul_reductions(bool deterministic, DType out);

struct MatmulOperands {
  Tensor a, b, c;
};

// Which products are tuned by themselves: what comes often enough to pay for it. Lengths that come and go do not.
struct TuningPolicy {
  int64_t least_multiplications = int64_t{1} << 26;
  int64_t after_uses = 200;
  int candidates = 16;  // of the heuristics' algorithms
};

class Matmul {
 public:
  static constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;  // of cuBLASLt
  static constexpr int64_t kPanelFloats = int64_t{4} << 20;

  Matmul(cudaStream_t stream, bool deterministic, const TuningPolicy& policy = {});
  ~Matmul();
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;
  int64_t workspace_bytes() const {
    return kWorkspaceBytes + (panels_ == nullptr ? 0 : 2 * kPanelFloats * static_cast<int64_t>(sizeof(float)));
  }

  cublasLtHandle_t handle() const { return handle_; }
  void* workspace() const { return workspace_; }  // of kWorkspaceBytes, for one product at a time

  static bool takes(DType a, DType b, DType c) {
    return a == b && (c == DType::f32 || (c == DType::bf16 && a == DType::bf16));
  }
  // A pair of dtypes that `takes` refuses is an internal error. An empty sum (k == 0) clears c or, with beta 1, keeps
  // it.
  void operator()(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c);

  // Times the first algorithms of the heuristics on the sets in turn (of one key; more of them than caches hold), uses
  // the fastest from now on and returns it. The c of every set is overwritten. Waits.
  TunedAlgorithm tune(Trans ta, Trans tb, float beta, std::span<const MatmulOperands> sets);

  // f32 (rows, cols) of at most kPanelFloats for what cuBLASLt does not take (linear.cpp); allocated when first asked
  // for, and one tensor each at a time.
  Tensor operand_panel(int64_t rows, int64_t cols) { return panel(0, rows, cols); }
  Tensor result_panel(int64_t rows, int64_t cols) { return panel(kPanelFloats, rows, cols); }

 private:
  struct Plan;
  Plan& plan(const MatmulKey& key);
  bool worth_tuning(Plan& plan, const MatmulKey& key);
  void tune_keeping_c(Trans ta, Trans tb, float beta, const MatmulOperands& operands);
  std::vector<cublasLtMatmulAlgo_t> candidates(const Plan& plan, const MatmulKey& key, uint32_t reductions,
                                               int count) const;
  bool usable(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, uint32_t reductions) const;
  cublasStatus_t run(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, float alpha,
                     const MatmulOperands& operands, float beta) const;
  float milliseconds(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, float beta,
                     std::span<const MatmulOperands> sets, float best_so_far) const;
  Tensor panel(int64_t begin, int64_t rows, int64_t cols);

  cudaStream_t stream_;
  bool deterministic_;
  TuningPolicy policy_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  float* panels_ = nullptr;
  TunedAlgorithms tuned_;
  std::map<MatmulKey, std::unique_ptr<Plan>> plans_;
};

// --- the low-rank term inside the base product ---
// Where x has room for u behind its columns, within its pitch, b lies right of w and a under it, [x | u]·[W | B]ᵀ is
// one product over in + strip columns. Where v lies right of dy and a under w, dy·W + v·A is one over out + strip.
// Source: design.md, "augmented weight buffers".
struct Augmented {
  bool possible = false;
  Tensor x, w;  // widened views
};
bool lies_at(Tensor part, Tensor whole, int64_t row, int64_t column);  // in one memory, pitch for pitch
Augmented augmented_forward(Tensor x, Tensor w, std::span<const LowRank> low_rank);
Augmented augmented_backward(Tensor dy, Tensor w, Tensor v, Tensor a);

// How often each linear (in × out) took which path.
struct LinearPaths {
  struct Count {
    int64_t fused = 0, unfused = 0, plain = 0;  // plain: no low-rank term
  };
  std::map<std::pair<int64_t, int64_t>, Count> forward, backward;  // by (in, out)
};

}  // namespace drover::cuda
