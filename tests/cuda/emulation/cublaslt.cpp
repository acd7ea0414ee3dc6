// The part of cuBLASLt that the backend calls, as plain loops by columns. It refuses what the library refuses: leading
// dimensions below the rows, dtypes that do not go together, operands less aligned than the algorithm needs, workspaces
// too small. Split sums round as their reduction scheme does.
#include <cublasLt.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "emulated_cublaslt.h"
#include "emulated_device.h"
#include "kernels/base/bf16.h"
#include "kernels/base/e4m3.h"
#include "streams.h"

namespace drover::cuda::emulation {

LtRecord lt_record;

namespace {

struct Operation {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  cublasOperation_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  int32_t mode_a = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F, mode_b = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  const float *scale_a = nullptr, *scale_b = nullptr;
};
struct Layout {
  cudaDataType_t type;
  int64_t rows, cols, ld;
  int64_t element() const { return type == CUDA_R_8F_E4M3 ? 1 : type == CUDA_R_16BF ? 2 : 4; }
};
struct Preference {
  uint64_t workspace = 0;
  uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  uint32_t alignment[4] = {256, 256, 256, 256};
};
struct Algorithm {
  int32_t id, splits;
  uint32_t reduction, alignment;
  uint64_t workspace;
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

// The library's favourites first, so that whoever does not ask for more gets them.
constexpr Algorithm kLtAlgorithms[] = {{lt_in_place, 4, CUBLASLT_REDUCTION_SCHEME_INPLACE, 16, 4096},
                                       {2, 4, CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 16, 1 << 20},
                                       {3, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 32, 0},
                                       {lt_plain, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 16, 0},
                                       {lt_workspace_too_large, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 16, 1 << 30},
                                       {lt_split, 4, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 16, 8 << 20},
                                       {7, 2, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 4, 1 << 20},
                                       {8, 1, CUBLASLT_REDUCTION_SCHEME_NONE, 1, 0}};

template <typename T, typename Opaque>
T& as(Opaque* opaque) {
  static_assert(sizeof(T) <= sizeof(Opaque));
  return *reinterpret_cast<T*>(opaque);
}
const Algorithm* known(const cublasLtMatmulAlgo_t* algo) {
  for (const Algorithm& a : kLtAlgorithms) {
    if (std::memcmp(&a, algo, sizeof(a)) == 0) return &a;
  }
  return nullptr;
}

int64_t rows_of(const Layout& l, cublasOperation_t op) { return op == CUBLAS_OP_N ? l.rows : l.cols; }
int64_t cols_of(const Layout& l, cublasOperation_t op) { return op == CUBLAS_OP_N ? l.cols : l.rows; }

// On Hopper: A transposed and B not, everything in multiples of 16 bytes, and scales a row each, or of blocks. That a
// result has rows (d.cols) in multiples of 8 is what Transformer Engine asks of its callers.
bool fits_fp8(const Operation& o, const Layout& a, const Layout& b, const Layout& d) {
  const bool rows = o.mode_a == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F && o.mode_b == o.mode_a;
  const bool blocks = o.mode_a == CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F &&
                      o.mode_b == CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F && a.rows % 128 == 0;
  return a.type == CUDA_R_8F_E4M3 && b.type == a.type && (d.type == CUDA_R_32F || d.type == CUDA_R_16BF) &&
         o.transpose_a == CUBLAS_OP_T && o.transpose_b == CUBLAS_OP_N && (rows || blocks) && o.scale_a != nullptr &&
         o.scale_b != nullptr && a.rows % 16 == 0 && a.ld % 16 == 0 && b.ld % 16 == 0 && d.rows % 16 == 0 &&
         d.ld * d.element() % 16 == 0 && d.cols % 8 == 0;
}

cublasStatus_t fits(const Operation& o, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
  if (o.compute != CUBLAS_COMPUTE_32F || o.scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool wide = a.type == CUDA_R_32F && d.type == CUDA_R_32F,
             narrow = a.type == CUDA_R_16BF && (d.type == CUDA_R_32F || d.type == CUDA_R_16BF);
  if (a.type != b.type || c.type != d.type || !(wide || narrow || fits_fp8(o, a, b, d)))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  for (const Layout* l : {&a, &b, &c, &d}) {
    if (l->ld < l->rows || l->rows <= 0 || l->cols <= 0) return CUBLAS_STATUS_INVALID_VALUE;
  }
  const bool shapes = rows_of(a, o.transpose_a) == d.rows && cols_of(b, o.transpose_b) == d.cols &&
                      cols_of(a, o.transpose_a) == rows_of(b, o.transpose_b) && c.rows == d.rows && c.cols == d.cols;
  return shapes ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

float load(const void* data, cudaDataType_t type, int64_t at) {
  return type == CUDA_R_16BF ? static_cast<float>(static_cast<const bf16*>(data)[at])
                             : static_cast<const float*>(data)[at];
}
void store(void* data, cudaDataType_t type, int64_t at, float value) {
  if (type == CUDA_R_16BF) {
    static_cast<bf16*>(data)[at] = bf16(value);
  } else {
    static_cast<float*>(data)[at] = value;
  }
}
// op(l)[i, j]
float load(const void* data, const Layout& l, cublasOperation_t op, int64_t i, int64_t j) {
  return load(data, l.type, op == CUBLAS_OP_N ? j * l.ld + i : i * l.ld + j);
}

// d = alpha·Σ over runs of k of the operands' scales · the sum of products of codes + beta·d
struct Codes {
  const void* data;
  const Layout& layout;
};
void multiply_fp8(const Operation& o, float alpha, Codes a, Codes b, float beta, void* d, const Layout& ld) {
  const Layout &la = a.layout, &lb = b.layout;
  const bool blocks = o.mode_b == CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
  const int64_t k = la.rows, run = blocks ? 128 : k, runs = k / run, pitch = (runs + 3) / 4 * 4;
  const auto* codes_a = static_cast<const uint8_t*>(a.data);
  const auto* codes_b = static_cast<const uint8_t*>(b.data);
  for (int64_t j = 0; j < ld.cols; ++j) {
    for (int64_t i = 0; i < ld.rows; ++i) {
      float total = 0;
      for (int64_t g = 0; g < runs; ++g) {
        float sum = 0;
        for (int64_t l = g * run; l < (g + 1) * run; ++l)
          sum += float_of_e4m3(codes_a[i * la.ld + l]) * float_of_e4m3(codes_b[j * lb.ld + l]);
        const float of_a = o.scale_a[blocks ? i / 128 * pitch + g : i], of_b = o.scale_b[blocks ? g * lb.cols + j : j];
        total += of_a * of_b * sum;
      }
      const int64_t at = j * ld.ld + i;
      store(d, ld.type, at, alpha * total + (beta == 0 ? 0.0f : beta * load(d, ld.type, at)));
    }
  }
}

constexpr int64_t kPanel = 16;  // rows of op(A) that are multiplied side by side

void multiply(const Operation& o, float alpha, const void* a, const Layout& la, const void* b, const Layout& lb,
              float beta, const void* c, void* d, const Layout& ld, const Algorithm& algorithm) {
  const int64_t m = ld.rows, n = ld.cols, k = cols_of(la, o.transpose_a),
                part = (k + algorithm.splits - 1) / algorithm.splits;
  const bool rounds = algorithm.reduction == CUBLASLT_REDUCTION_SCHEME_INPLACE ||
                      algorithm.reduction == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
  const auto scheme_rounds = [&](float v) {
    return rounds && ld.type == CUDA_R_16BF ? static_cast<float>(bf16(v)) : v;
  };
  std::vector<float> right(static_cast<size_t>(n * k)), left(static_cast<size_t>(kPanel * k));
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t l = 0; l < k; ++l) right[static_cast<size_t>(j * k + l)] = load(b, lb, o.transpose_b, l, j);
  }
  for (int64_t i = 0; i < m; i += kPanel) {
    const int64_t rows = std::min(kPanel, m - i);
    for (int64_t l = 0; l < k; ++l) {
      for (int64_t r = 0; r < kPanel; ++r)
        left[static_cast<size_t>(l * kPanel + r)] = r < rows ? load(a, la, o.transpose_a, i + r, l) : 0.0f;
    }
    for (int64_t j = 0; j < n; ++j) {
      float total[kPanel] = {};
      for (int64_t begin = 0; begin < k; begin += part) {
        float sum[kPanel] = {};
        for (int64_t l = begin; l < std::min(k, begin + part); ++l) {
          const float factor = right[static_cast<size_t>(j * k + l)];
          const float* column = left.data() + l * kPanel;
          for (int64_t r = 0; r < kPanel; ++r) sum[r] += factor * column[r];
        }
        for (int64_t r = 0; r < kPanel; ++r) total[r] = scheme_rounds(total[r] + scheme_rounds(sum[r]));
      }
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t at = j * ld.ld + i + r;
        float value = alpha * total[r];
        if (beta != 0) value += beta * load(c, ld.type, at);
        store(d, ld.type, at, value);
      }
    }
  }
}

}  // namespace

cublasLtMatmulAlgo_t lt_algorithm(int id) {
  cublasLtMatmulAlgo_t algo{};
  std::memcpy(&algo, &kLtAlgorithms[id - 1], sizeof(Algorithm));
  return algo;
}

}  // namespace drover::cuda::emulation

using namespace drover::cuda::emulation;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(&lt_record);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }
size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "success";
    case CUBLAS_STATUS_INVALID_VALUE: return "invalid value";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "not supported";
    default: return "another status";
  }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute, cudaDataType_t scale) {
  *made = new cublasLtMatmulDescOpaque_t{};
  as<Operation>(*made) = {compute, scale};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  delete operation;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t size) {
  Operation& o = as<Operation>(operation);
  const auto set = [&](auto& to) {
    if (size != sizeof(to)) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&to, value, size);
    return CUBLAS_STATUS_SUCCESS;
  };
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return set(o.transpose_a);
    case CUBLASLT_MATMUL_DESC_TRANSB: return set(o.transpose_b);
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE: return set(o.mode_a);
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE: return set(o.mode_b);
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER: return set(o.scale_a);
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER: return set(o.scale_b);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type, uint64_t rows, uint64_t cols,
                                          int64_t ld) {
  *made = new cublasLtMatrixLayoutOpaque_t{};
  as<Layout>(*made) = {type, static_cast<int64_t>(rows), static_cast<int64_t>(cols), ld};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  *made = new cublasLtMatmulPreferenceOpaque_t{};
  as<Preference>(*made) = {};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t size) {
  Preference& p = as<Preference>(preference);
  const auto set = [&](auto& to) {
    if (size != sizeof(to)) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&to, value, size);
    return CUBLAS_STATUS_SUCCESS;
  };
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return set(p.workspace);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return set(p.reductions);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return set(p.alignment[0]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return set(p.alignment[1]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return set(p.alignment[2]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return set(p.alignment[3]);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
  const cublasStatus_t status =
      fits(as<Operation>(operation), as<Layout>(a), as<Layout>(b), as<Layout>(c), as<Layout>(d));
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const Preference& p = as<Preference>(preference);
  ++lt_record.heuristics;
  lt_record.reduction_mask = p.reductions;
  // Ranks that are threads ask at the same time, and the record is of the last.
  const uint32_t alignment = *std::min_element(std::begin(p.alignment), std::end(p.alignment));
  lt_record.alignment = alignment;
  *found = 0;
  for (const Algorithm& algorithm : kLtAlgorithms) {
    const bool allowed =
        algorithm.reduction == CUBLASLT_REDUCTION_SCHEME_NONE || (p.reductions & algorithm.reduction) != 0;
    if (*found == wanted || !allowed || algorithm.alignment > alignment || algorithm.workspace > p.workspace) continue;
    cublasLtMatmulHeuristicResult_t& result = results[(*found)++];
    result = {};
    std::memcpy(&result.algo, &algorithm, sizeof(algorithm));
    result.workspaceSize = algorithm.workspace;
    result.state = CUBLAS_STATUS_SUCCESS;
  }
  return *found > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algo, cublasLtMatmulHeuristicResult_t* result) {
  const Algorithm* algorithm = known(algo);
  if (algorithm == nullptr) return CUBLAS_STATUS_NOT_SUPPORTED;
  result->workspaceSize = algorithm->workspace;
  return result->state = fits(as<Operation>(operation), as<Layout>(a), as<Layout>(b), as<Layout>(c), as<Layout>(d));
}
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, void* value,
                                                    size_t size, size_t* written) {
  const Algorithm* algorithm = known(algo);
  if (algorithm == nullptr || attribute != CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME || size != sizeof(uint32_t))
    return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(value, &algorithm->reduction, size);
  *written = size;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  const Operation& o = as<Operation>(operation);
  const Layout &la = as<Layout>(a_layout), &lb = as<Layout>(b_layout), &lc = as<Layout>(c_layout),
               &ld = as<Layout>(d_layout);
  const cublasStatus_t status = fits(o, la, lb, lc, ld);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const Algorithm* algorithm = known(algo);
  if (algorithm == nullptr) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (algorithm->workspace > workspace_bytes || (algorithm->workspace > 0 && workspace == nullptr))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (c == d && lc.ld != ld.ld) return CUBLAS_STATUS_INVALID_VALUE;
  for (const auto& [data, layout] :
       {std::pair{a, &la}, std::pair{b, &lb}, std::pair{c, &lc}, std::pair{static_cast<const void*>(d), &ld}}) {
    const uintptr_t bits = reinterpret_cast<uintptr_t>(data) | static_cast<uintptr_t>(layout->ld * layout->element());
    if (data == nullptr ||
        bits % std::max<uintptr_t>(algorithm->alignment, static_cast<uintptr_t>(layout->element())) != 0) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
  }
  ++lt_record.products;
  lt_record.algorithm = algorithm->id;
  lt_record.reduction = algorithm->reduction;
  enqueue(stream, [=, o = o, la = la, lb = lb, ld = ld, alpha = *static_cast<const float*>(alpha),
                   beta = *static_cast<const float*>(beta)] {
    if (done_by_device != nullptr) {
      const auto text = [](const Layout& l, cublasOperation_t op) {
        const char *type = l.type == CUDA_R_8F_E4M3 ? "e4m3"
                           : l.type == CUDA_R_16BF  ? "bf16"
                                                    : "f32",
                   *turned = op == CUBLAS_OP_N ? "" : "'";
        return fmt::format("{}({},{}/{}){}", type, l.cols, l.rows, l.ld, turned);
      };
      done_by_device->push_back(fmt::format("product {}*{} {} {}", text(lb, o.transpose_b), text(la, o.transpose_a),
                                            beta == 0 ? "to" : "added to", text(ld, CUBLAS_OP_N)));
    }
    if (la.type == CUDA_R_8F_E4M3) return multiply_fp8(o, alpha, {a, la}, {b, lb}, beta, d, ld);
    multiply(o, alpha, a, la, b, lb, beta, c, d, ld, *algorithm);
  });
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
