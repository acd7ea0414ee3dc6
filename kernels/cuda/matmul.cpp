#include "kernels/cuda/matmul.h"

#include <algorithm>
#include <limits>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/cuda/check.h"

namespace drover::cuda {

namespace {

constexpr size_t kMostPlans = 4096;

cudaDataType_t cuda_type(DType type) { return type == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

int64_t pitch_of(Tensor t) { return t.rows > 1 ? t.pitch : std::max(t.pitch, t.cols); }  // a single row's says nothing

int alignment_of(std::initializer_list<Tensor> tensors) {
  uintptr_t bits = 256;
  for (const Tensor& t : tensors)
    bits |= reinterpret_cast<uintptr_t>(t.data) | static_cast<uintptr_t>(pitch_of(t) * size_of(t.dtype));
  return static_cast<int>(bits & -bits);
}

std::string shape_of(Trans trans, Tensor t) {
  return fmt::format("{}×{} {}{}", t.rows, t.cols, name_of(t.dtype), trans == Trans::yes ? " transposed" : "");
}

}  // namespace

// A sum split over k may be put together in fp32, in a step of its own. In place, the order of the parts is nowhere
// promised; in bf16, parts would be rounded.
uint32_t matmul_reductions(bool deterministic, DType out) {
  const bool in_place = !deterministic && out == DType::f32;
  return CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE |
         (in_place ? CUBLASLT_REDUCTION_SCHEME_INPLACE : CUBLASLT_REDUCTION_SCHEME_NONE);
}

MatmulKey matmul_key(Trans ta, Trans tb, Tensor a, Tensor b, float beta, Tensor c) {
  const int64_t k = ta == Trans::no ? a.cols : a.rows;
  const bool fits = (ta == Trans::no ? a.rows : a.cols) == c.rows && (tb == Trans::no ? b.cols : b.rows) == c.cols &&
                    (tb == Trans::no ? b.rows : b.cols) == k;
  if (!fits || (k > 0 && !Matmul::takes(a.dtype, b.dtype, c.dtype))) {
    fail(Fault::internal, "internal error: no product of {} and {} is {}", shape_of(ta, a), shape_of(tb, b),
         shape_of(Trans::no, c));
  }
  return {ta == Trans::yes, tb == Trans::yes, c.rows,  c.cols,  k,         pitch_of(a),
          pitch_of(b),      pitch_of(c),      a.dtype, c.dtype, beta != 0, alignment_of({a, b, c})};
}

std::string text_of(const MatmulKey& key) {
  return fmt::format("{}{} {}x{}x{} pitch {},{},{} {} to {}{} align {}", key.transpose_a ? 't' : 'n',
                     key.transpose_b ? 't' : 'n', key.m, key.n, key.k, key.pitch_a, key.pitch_b, key.pitch_c,
                     name_of(key.in), name_of(key.out), key.accumulate ? " added" : "", key.alignment);
}

// cuBLASLt's A is our b, and its B our a.
struct Matmul::Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  bool tuned = false;
  int64_t uses = 0;

  explicit Plan(const MatmulKey& key) {
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, bool transpose) {
      const cublasOperation_t value = transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
      check(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof(value)),
            "cublasLtMatmulDescSetAttribute");
    };
    // What lies in memory as (rows, cols) by rows is (cols, rows) by columns.
    const auto layout = [](DType type, int64_t rows, int64_t cols, int64_t pitch) {
      cublasLtMatrixLayout_t made = nullptr;
      check(cublasLtMatrixLayoutCreate(&made, cuda_type(type), static_cast<uint64_t>(cols), static_cast<uint64_t>(rows),
                                       pitch),
            "cublasLtMatrixLayoutCreate");
      return made;
    };
    check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    set(CUBLASLT_MATMUL_DESC_TRANSA, key.transpose_b);
    set(CUBLASLT_MATMUL_DESC_TRANSB, key.transpose_a);
    a = layout(key.in, key.transpose_a ? key.k : key.m, key.transpose_a ? key.m : key.k, key.pitch_a);
    b = layout(key.in, key.transpose_b ? key.n : key.k, key.transpose_b ? key.k : key.n, key.pitch_b);
    c = layout(key.out, key.m, key.n, key.pitch_c);
  }
  ~Plan() {
    cublasLtMatrixLayoutDestroy(a);
    cublasLtMatrixLayoutDestroy(b);
    cublasLtMatrixLayoutDestroy(c);
    cublasLtMatmulDescDestroy(operation);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
};

Matmul::Matmul(cudaStream_t stream, bool deterministic, const TuningPolicy& policy)
    : stream_(stream), deterministic_(deterministic), policy_(policy) {
  check(cublasLtCreate(&handle_), "cublasLtCreate");
  check(cudaMalloc(&workspace_, static_cast<size_t>(kWorkspaceBytes)), "cudaMalloc");
  if (!deterministic_) tuned_ = read_tuned(tuned_path(), this_device());
}

Matmul::~Matmul() {
  plans_.clear();
  cudaFree(panels_);
  cudaFree(workspace_);
  cublasLtDestroy(handle_);
}

std::vector<cublasLtMatmulAlgo_t> Matmul::candidates(const Plan& plan, const MatmulKey& key, uint32_t reductions,
                                                     int count) const {
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
          "cublasLtMatmulPreferenceSetAttribute");
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceBytes));
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(attribute, static_cast<uint32_t>(key.alignment));
  }
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(count));
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, plan.operation, plan.b, plan.a, plan.c, plan.c,
                                                               preference, count, results.data(), &found);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) check(status, "cublasLtMatmulAlgoGetHeuristic");
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; i < found; ++i) {
    if (results[static_cast<size_t>(i)].state == CUBLAS_STATUS_SUCCESS)
      algorithms.push_back(results[static_cast<size_t>(i)].algo);
  }
  if (algorithms.empty())
    fail(Fault::internal, "internal error: cuBLASLt has no algorithm for {} ({})", text_of(key),
         cublasLtGetStatusString(status));
  return algorithms;
}

bool Matmul::usable(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, uint32_t reductions) const {
  cublasLtMatmulHeuristicResult_t result{};
  uint32_t reduction = 0;
  size_t written = 0;
  return cublasLtMatmulAlgoCheck(handle_, plan.operation, plan.b, plan.a, plan.c, plan.c, &algorithm, &result) ==
             CUBLAS_STATUS_SUCCESS &&
         result.workspaceSize <= static_cast<size_t>(kWorkspaceBytes) &&
         cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &reduction,
                                              sizeof(reduction), &written) == CUBLAS_STATUS_SUCCESS &&
         (reduction & ~reductions) == 0;
}

Matmul::Plan& Matmul::plan(const MatmulKey& key) {
  const auto found = plans_.find(key);
  if (found != plans_.end()) return *found->second;
  if (plans_.size() >= kMostPlans) plans_.clear();
  auto made = std::make_unique<Plan>(key);
  const uint32_t reductions = matmul_reductions(deterministic_, key.out);
  const auto tuned = tuned_.empty() ? tuned_.end() : tuned_.find(text_of(key));
  if (tuned != tuned_.end() && usable(*made, tuned->second.algorithm, reductions)) {
    made->algorithm = tuned->second.algorithm;
    made->tuned = true;
  } else {
    if (tuned != tuned_.end()) log::warn("the tuned algorithm for {} does not run here; tune again", text_of(key));
    made->algorithm = candidates(*made, key, reductions, 1).front();
  }
  return *plans_.emplace(key, std::move(made)).first->second;
}

cublasStatus_t Matmul::run(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, float alpha,
                           const MatmulOperands& operands, float beta) const {
  return cublasLtMatmul(handle_, plan.operation, &alpha, operands.b.data, plan.b, operands.a.data, plan.a, &beta,
                        operands.c.data, plan.c, operands.c.data, plan.c, &algorithm, workspace_,
                        static_cast<size_t>(kWorkspaceBytes), stream_);
}

void Matmul::operator()(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
  const MatmulKey key = matmul_key(ta, tb, a, b, beta, c);
  if (c.size() == 0) return;
  if (key.k == 0) {
    require(beta == 0 || beta == 1, "an empty product clears or keeps c");
    if (beta == 1) return;
    const size_t size = static_cast<size_t>(size_of(c.dtype));
    check(cudaMemset2DAsync(c.data, static_cast<size_t>(key.pitch_c) * size, 0, static_cast<size_t>(c.cols) * size,
                            static_cast<size_t>(c.rows), stream_),
          "cudaMemset2DAsync");
    return;
  }
  Plan& chosen = plan(key);
  if (worth_tuning(chosen, key)) tune_keeping_c(ta, tb, beta, {a, b, c});
  const cublasStatus_t status = run(chosen, chosen.algorithm, alpha, {a, b, c}, beta);
  if (status != CUBLAS_STATUS_SUCCESS) check(status, fmt::format("cublasLtMatmul ({})", text_of(key)).c_str());
}

// --- tuning --------------------------------------------------------------------------------------

namespace {

class Stopwatch {
 public:
  Stopwatch() {
    check(cudaEventCreateWithFlags(&begin_, cudaEventDefault), "cudaEventCreateWithFlags");
    check(cudaEventCreateWithFlags(&end_, cudaEventDefault), "cudaEventCreateWithFlags");
  }
  ~Stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  void start(cudaStream_t stream) { check(cudaEventRecord(begin_, stream), "cudaEventRecord"); }
  float stop(cudaStream_t stream) {
    float elapsed = 0;
    check(cudaEventRecord(end_, stream), "cudaEventRecord");
    check(cudaEventSynchronize(end_), "cudaEventSynchronize");
    check(cudaEventElapsedTime(&elapsed, begin_, end_), "cudaEventElapsedTime");
    return elapsed;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace

// Of one product, the best of a few rounds, or of a single run where that shows that it is far from `best_so_far`;
// infinite where the algorithm does not run.
float Matmul::milliseconds(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, float beta,
                           std::span<const MatmulOperands> sets, float best_so_far) const {
  constexpr int kRounds = 3, kMostRuns = 20;
  constexpr float kRoundMilliseconds = 6;
  constexpr float kFar = 1.5f;
  Stopwatch watch;
  if (run(plan, algorithm, 1, sets.front(), beta) != CUBLAS_STATUS_SUCCESS)
    return std::numeric_limits<float>::infinity();  // this one loads it, too
  watch.start(stream_);
  check(run(plan, algorithm, 1, sets.back(), beta), "cublasLtMatmul");
  float best = watch.stop(stream_);
  if (best > kFar * best_so_far) return best;
  const int runs = std::clamp(static_cast<int>(kRoundMilliseconds / std::max(best, 1e-3f)), 2, kMostRuns);
  for (int round = 0; round < kRounds; ++round) {
    watch.start(stream_);
    for (int i = 0; i < runs; ++i)
      check(run(plan, algorithm, 1, sets[static_cast<size_t>(i) % sets.size()], beta), "cublasLtMatmul");
    best = std::min(best, watch.stop(stream_) / static_cast<float>(runs));
  }
  return best;
}

TunedAlgorithm Matmul::tune(Trans ta, Trans tb, float beta, std::span<const MatmulOperands> sets) {
  require(!sets.empty(), "tuning needs operands");
  const MatmulKey key = matmul_key(ta, tb, sets.front().a, sets.front().b, beta, sets.front().c);
  for (const MatmulOperands& set : sets)
    require(matmul_key(ta, tb, set.a, set.b, beta, set.c) == key, "tuning needs operands of one key");
  require(key.m > 0 && key.n > 0 && key.k > 0, "only products that multiply are tuned");
  Plan& tuned = plan(key);
  TunedAlgorithm best{tuned.algorithm, std::numeric_limits<double>::infinity()};
  for (const cublasLtMatmulAlgo_t& algorithm :
       candidates(tuned, key, matmul_reductions(true, key.out), policy_.candidates)) {
    const double us = 1000.0 * static_cast<double>(milliseconds(tuned, algorithm, beta, sets,
                                                                static_cast<float>(best.microseconds / 1000)));
    if (us < best.microseconds) best = {algorithm, us};
  }
  require(best.microseconds < std::numeric_limits<double>::infinity(), "one of cuBLASLt's algorithms runs");
  tuned.algorithm = best.algorithm;
  tuned.tuned = true;
  tuned_[text_of(key)] = best;
  return best;
}

bool Matmul::worth_tuning(Plan& plan, const MatmulKey& key) {
  if (deterministic_ || plan.tuned || ++plan.uses < policy_.after_uses ||
      key.m * key.n * key.k < policy_.least_multiplications)
    return false;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;  // tuning waits
  check(cudaStreamIsCapturing(stream_, &status), "cudaStreamIsCapturing");
  return status == cudaStreamCaptureStatusNone;
}

// Timing overwrites c, which an accumulating product still needs.
void Matmul::tune_keeping_c(Trans ta, Trans tb, float beta, const MatmulOperands& operands) {
  const Tensor c = operands.c;
  const size_t size = static_cast<size_t>(size_of(c.dtype)), width = static_cast<size_t>(c.cols) * size,
               pitch = static_cast<size_t>(c.pitch) * size;
  void* kept = nullptr;
  if (beta != 0 && cudaMalloc(&kept, width * static_cast<size_t>(c.rows)) != cudaSuccess) {
    cudaGetLastError();  // no room to tune in: go on with what there is
    plan(matmul_key(ta, tb, operands.a, operands.b, beta, c)).tuned = true;
    return;
  }
  const auto move = [&](void* to, size_t to_pitch, const void* from, size_t from_pitch) {
    check(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, static_cast<size_t>(c.rows),
                            cudaMemcpyDeviceToDevice, stream_),
          "cudaMemcpy2DAsync");
  };
  if (kept) move(kept, width, c.data, pitch);
  const TunedAlgorithm best = tune(ta, tb, beta, {&operands, 1});
  if (kept) move(c.data, pitch, kept, width);
  cudaFree(kept);  // waits
  const std::string key = text_of(matmul_key(ta, tb, operands.a, operands.b, beta, c));
  log::write(fmt::format("matrix product {}: tuned, {:.0f} µs", key, best.microseconds));
  if (const auto path = tuned_path(); !path.empty()) write_tuned(path, this_device(), {{key, best}});
}

Tensor Matmul::panel(int64_t begin, int64_t rows, int64_t cols) {
  require(rows * cols <= kPanelFloats, "an fp32 panel holds what it is asked for");
  if (panels_ == nullptr) {
    void* block = nullptr;
    check(cudaMalloc(&block, 2 * kPanelFloats * sizeof(float)), "cudaMalloc");
    panels_ = static_cast<float*>(block);
  }
  return matrix(panels_ + begin, rows, cols, DType::f32, Where::device);
}

}  // namespace drover::cuda
