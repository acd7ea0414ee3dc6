#include "kernels/cpu/row_product.h"

#include <omp.h>

#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu {

namespace {

constexpr int64_t kRowsAtOnce = 512;               // whose sums of a panel lie in a core's cache
constexpr int64_t kRowsUnpacked = 8;               // up to so many, weights are used as they come from memory
constexpr int64_t kWideFloats = int64_t{4} << 20;  // of widened rows: 16 MiB
constexpr int64_t kSumsBytes = kRowsAtOnce * kPanel * 4;
constexpr int64_t kThreadBytes = kSumsBytes + std::max(chain::kPanelBytes, pairs::kPanelBytes);

bool cpu_multiplies_bf16() {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto wanted = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);  // sets of feature bits
  return (isa & wanted) == wanted;
}

template <typename T>
Rows<T> rows_of(Tensor t) {
  return {static_cast<const T*>(t.data), t.pitch};
}

// What the two ways to link a chain have in common; X and W are the types that they read.
struct Chain {
  static constexpr int64_t kFew = chain::kFewRows, kGroup = chain::kGroup, kDepth = chain::kDepth;
  template <typename W>
  static void few(int64_t n, Rows<float> x, Rows<W> w, int64_t outputs, int64_t k, float* sums) {
    chain::few_rows(n, x, w, outputs, k, sums, kPanel);
  }
  template <typename W>
  static void pack(Rows<W> w, int64_t outputs, int64_t k, void* panel) {
    chain::pack(w, outputs, k, panel);
  }
  static void packed(int64_t n, Rows<float> x, const void* panel, int64_t k, float* sums) {
    chain::packed(n, x, panel, k, sums);
  }
};
struct Pairs {
  static constexpr int64_t kFew = pairs::kFewRows, kGroup = pairs::kGroup, kDepth = pairs::kDepth;
  static void few(int64_t n, Rows<bf16> x, Rows<bf16> w, int64_t outputs, int64_t k, float* sums) {
    pairs::few_rows(n, x, w, outputs, k, sums, kPanel);
  }
  static void pack(Rows<bf16> w, int64_t outputs, int64_t k, void* panel) { pairs::pack(w, outputs, k, panel); }
  static void packed(int64_t n, Rows<bf16> x, const void* panel, int64_t k, float* sums) {
    pairs::packed(n, x, panel, k, sums);
  }
};

// Continues the chains of `n` rows and at most kPanel outputs: group by group, weights as they lie in memory.
template <typename Kernel, typename X, typename W>
void unpacked_product(int64_t n, Rows<X> x, Rows<W> w, int64_t outputs, int64_t k, float* sums) {
  for (int64_t o = 0; o < outputs; o += Kernel::kGroup) {
    for (int64_t t = 0; t < n; t += Kernel::kFew) {
      Kernel::few(std::min(Kernel::kFew, n - t), x.from(t), w.from(o), std::min(Kernel::kGroup, outputs - o), k,
                  sums + t * kPanel + o);
    }
  }
}

// The same for many rows: a panel of weights is transposed once for all of them. Sums beyond `outputs` are rubbish.
template <typename Kernel, typename X, typename W>
void packed_product(int64_t n, Rows<X> x, Rows<W> w, int64_t outputs, int64_t k, float* sums, void* panel) {
  for (int64_t i = 0; i < k; i += Kernel::kDepth) {
    const int64_t depth = std::min(Kernel::kDepth, k - i);
    Kernel::pack(Rows<W>{w.data + i, w.pitch}, outputs, depth, panel);
    Kernel::packed(n, {x.data + i, x.pitch}, panel, depth, sums);
  }
}

// sums (n, outputs) += x·wᵀ. `panel` null: unpacked.
void product(Tensor x, Tensor w, float* sums, void* panel) {
  const auto run = [&]<typename Kernel, typename X, typename W>(Kernel, Rows<X> xs, Rows<W> ws) {
    if (panel == nullptr) return unpacked_product<Kernel>(x.rows, xs, ws, w.rows, x.cols, sums);
    packed_product<Kernel>(x.rows, xs, ws, w.rows, x.cols, sums, panel);
  };
  if (x.dtype == DType::bf16) return run(Pairs{}, rows_of<bf16>(x), rows_of<bf16>(w));
  with_type(w, [&](auto* typed) {
    using W = std::remove_pointer_t<decltype(typed)>;
    run(Chain{}, rows_of<float>(x), rows_of<W>(w));
  });
}

void finish(Tensor sums, float alpha, bool accumulate, Tensor y) {
  with_type(y, [&](auto* out) {
    for (int64_t t = 0; t < y.rows; ++t) {
      const float* from = sums.as<float>() + t * sums.pitch;
      auto* to = out + t * y.pitch;
      if (accumulate) {
        map_row(
            y.cols, [](Vec a, Vec b) { return _mm256_add_ps(a, b); }, to, from, to);
      } else {
        map_row(
            y.cols, [a = _mm256_set1_ps(alpha)](Vec v) { return _mm256_mul_ps(v, a); }, to, from);
      }
    }
  });
}

}  // namespace

RowProduct::RowProduct(int threads) : threads_(threads), multiplies_bf16_(cpu_multiplies_bf16()) {
  wide_ = std::make_unique_for_overwrite<float[]>(kWideFloats);
  scratch_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(threads * kThreadBytes));
}

int64_t RowProduct::workspace_bytes() const {
  return threads_ * kThreadBytes + (multiplies_bf16_ ? 0 : kWideFloats * static_cast<int64_t>(sizeof(float)));
}

Tensor RowProduct::as_read(Tensor x, Tensor w, int64_t& wide_used) {
  if (x.dtype == DType::f32 || (multiplies_bf16_ && w.dtype == DType::bf16)) return x;
  const Tensor wide = matrix(wide_.get() + wide_used, x.rows, x.cols, DType::f32);
  wide_used += x.size();
#pragma omp parallel for num_threads(threads_) schedule(static)
  for (int64_t t = 0; t < x.rows; ++t) {
    map_row(
        x.cols, [](Vec v) { return v; }, wide.as<float>() + t * wide.pitch, x.as<bf16>() + t * x.pitch);
  }
  return wide;
}

void RowProduct::linear(float alpha, Tensor x, Tensor w, std::span<const LowRankProduct> low_rank, bool accumulate, Tensor y) {
  require(alpha == 1 || (low_rank.empty() && !accumulate), "a scaled product has nothing added to it");
  int64_t values = x.cols;  // of a row, with its low-rank terms
  for (const LowRankProduct& term : low_rank) values += term.u.cols;
  const int64_t at_once = std::clamp<int64_t>(kWideFloats / std::max<int64_t>(values, 1), 1, kRowsAtOnce);
  require(values <= kWideFloats, "a row of a product fits the scratch");
  for (int64_t t = 0; t < x.rows; t += at_once) {
    const int64_t n = std::min(at_once, x.rows - t);
    int64_t wide_used = 0;
    const Tensor rows = as_read(x.rows_from(t, n), w, wide_used);
    std::vector<LowRankProduct> terms(low_rank.begin(), low_rank.end());
    for (LowRankProduct& term : terms) term.u = as_read(term.u.rows_from(t, n), term.b, wide_used);
    panels(alpha, rows, w, terms, accumulate, y.rows_from(t, n));
  }
}

void RowProduct::panels(float alpha, Tensor x, Tensor w, std::span<const LowRankProduct> low_rank, bool accumulate, Tensor y) {
  const bool unpacked = x.rows <= kRowsUnpacked;
  const int64_t width = unpacked ? kPanel / 4 : kPanel;  // narrower ones are dealt more evenly
#pragma omp parallel for num_threads(threads_) schedule(static)
  for (int64_t begin = 0; begin < w.rows; begin += width) {
    const int64_t end = std::min(begin + width, w.rows);
    std::byte* scratch = scratch_.get() + omp_get_thread_num() * kThreadBytes;
    float* sums = reinterpret_cast<float*>(scratch);
    std::fill_n(sums, x.rows * kPanel, 0.0f);
    product(x, w.rows_from(begin, end - begin), sums, unpacked ? nullptr : scratch + kSumsBytes);
    for (const LowRankProduct& term : low_rank) {
      const int64_t from = std::max(begin, term.column), to = std::min(end, term.column + term.b.rows);
      if (from < to) product(term.u, term.b.rows_from(from - term.column, to - from), sums + from - begin, nullptr);
    }
    finish(matrix(sums, x.rows, kPanel, DType::f32), alpha, accumulate, y.columns(begin, end - begin));
  }
}

}  // namespace drover::cpu
