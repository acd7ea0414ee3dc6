#include "kernels/cuda/fp8_matmul.h"

#include "kernels/base/error.h"
#include "kernels/cuda/check.h"

namespace drover::cuda {

namespace {

constexpr size_t kMostPlans = 4096;
constexpr uintptr_t kAlignment = 16;

template <typename T>
void set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof(value)), "cublasLtMatmulDescSetAttribute");
}

cublasLtMatrixLayout_t layout(cudaDataType_t type, int64_t rows, int64_t cols, int64_t pitch) {
  cublasLtMatrixLayout_t made = nullptr;
  check(cublasLtMatrixLayoutCreate(&made, type, static_cast<uint64_t>(cols), static_cast<uint64_t>(rows), pitch),
        "cublasLtMatrixLayoutCreate");
  return made;
}

}  // namespace

// cuBLASLt is column-major: its A is our w and its B our x, both with k along their columns, A transposed.
struct Fp8Matmul::Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algorithm{};

  explicit Plan(const Key& key) {
    check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    set(operation, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    set(operation, CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
    const int32_t of_w =
        key.blocks ? CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F : CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    const int32_t of_x =
        key.blocks ? CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F : CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    set(operation, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, of_w);
    set(operation, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, of_x);
    w = layout(CUDA_R_8F_E4M3, key.n, key.k, key.pitch_w);
    x = layout(CUDA_R_8F_E4M3, key.m, key.k, key.pitch_x);
    c = layout(key.out == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F, key.m, key.n, key.pitch_c);
  }
  ~Plan() {
    cublasLtMatrixLayoutDestroy(w);
    cublasLtMatrixLayoutDestroy(x);
    cublasLtMatrixLayoutDestroy(c);
    cublasLtMatmulDescDestroy(operation);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  void scale_by(const float* of_w, const float* of_x) const {
    const void *a = of_w, *b = of_x;
    set(operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, a);
    set(operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, b);
  }
};

Fp8Matmul::Fp8Matmul(const Matmul& matmul, cudaStream_t stream, bool deterministic)
    : matmul_(matmul), stream_(stream), deterministic_(deterministic) {}
Fp8Matmul::~Fp8Matmul() = default;

bool Fp8Matmul::takes(Tensor c) {
  const uintptr_t bits = reinterpret_cast<uintptr_t>(c.data) | static_cast<uintptr_t>(c.pitch * size_of(c.dtype));
  return bits % kAlignment == 0 && c.rows % 16 == 0;
}

void Fp8Matmul::choose(Plan& plan, const Key& key) const {
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
          "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(Matmul::kWorkspaceBytes));
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, matmul_reductions(deterministic_, key.out));
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    prefer(attribute, static_cast<uint32_t>(kAlignment));
  }
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(matmul_.handle(), plan.operation, plan.w, plan.x, plan.c,
                                                               plan.c, preference, 1, &result, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) check(status, "cublasLtMatmulAlgoGetHeuristic");
  if (found == 0 || result.state != CUBLAS_STATUS_SUCCESS) {
    fail(
        Fault::bad_recipe,
        "train.matmul: cuBLASLt has no product in fp8 of {} × {} × {} scaled by {} on this GPU ({}); set train.matmul: "
        "bf16",
        key.m, key.n, key.k, key.blocks ? "blocks" : "rows", cublasLtGetStatusString(status));
  }
  plan.algorithm = result.algo;
}

Fp8Matmul::Plan& Fp8Matmul::plan(const Key& key) {
  const auto found = plans_.find(key);
  if (found != plans_.end()) return *found->second;
  if (plans_.size() >= kMostPlans) plans_.clear();
  return *plans_.emplace(key, std::make_unique<Plan>(key)).first->second;
}

void Fp8Matmul::operator()(const Fp8Operand& x, const Fp8Operand& w, bool blocks, float beta, Tensor c) {
  require(takes(c) && x.codes.rows == c.rows && w.codes.rows == c.cols && x.codes.cols == w.codes.cols,
          "the shapes of a product in fp8 fit");
  if (c.size() == 0) return;
  const Key key{blocks, c.rows, c.cols, x.codes.cols, x.codes.pitch, w.codes.pitch, c.pitch, c.dtype};
  const bool known = plans_.contains(key);
  Plan& chosen = plan(key);
  chosen.scale_by(w.scales, x.scales);  // which the heuristics look at, too
  if (!known) choose(chosen, key);
  const float alpha = 1;
  check(cublasLtMatmul(matmul_.handle(), chosen.operation, &alpha, w.codes.data, chosen.w, x.codes.data, chosen.x,
                       &beta, c.data, chosen.c, c.data, chosen.c, &chosen.algorithm, matmul_.workspace(),
                       static_cast<size_t>(Matmul::kWorkspaceBytes), stream_),
        "cublasLtMatmul in fp8");
}

}  // namespace drover::cuda
