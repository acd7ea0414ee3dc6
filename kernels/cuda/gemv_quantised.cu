// A warp takes four outputs, or two of a narrow weight, over chunks of 2048 columns, two times 256 of them at once on
// their way. A lane sums every 32nd group of eight, in order, as gemv.cu does of plain numbers: without low-rank terms
// the result has the same bits as that of the widened weight.
#include "kernels/cuda/gemv_parts.h"
#include "kernels/cuda/gemv_quantised.h"
#include "kernels/cuda/quantised.h"

namespace drover::cuda {

namespace {

static_assert(kGroup == kCodes);
constexpr int kAhead = 2;  // groups of a lane whose codes are on their way
constexpr int kChunk =
    static_cast<int>(kNf4Block) * kWarp;  // columns: a lane has the absmax of one block of each output

// y's columns [column, column + rows) get u[:, from…]·bᵀ.
template <typename T>
struct GemvTerm {
  const T* b;
  int64_t pitch, column, rows;
  int rank, from;
};
template <typename T>
struct GemvTerms {
  const T* u;
  int64_t pitch;
  int count;
  GemvTerm<T> term[kQuantisedGemvTerms];
};

template <int Rows, int Outputs, typename T>
__device__ inline void add_terms(const GemvTerms<T>& terms, int rows, int64_t first, float (&sums)[Rows][Outputs]) {
#pragma unroll
  for (int i = 0; i < static_cast<int>(kQuantisedGemvTerms); ++i) {
    if (i >= terms.count) return;
    const GemvTerm<T>& term = terms.term[i];
    for (int l = threadIdx.x % kWarp; l < term.rank; l += kWarp) {
#pragma unroll
      for (int o = 0; o < Outputs; ++o) {
        const int64_t row = first + o - term.column;
        if (row < 0 || row >= term.rows) continue;
        const float b = load_float(term.b + row * term.pitch + l);
#pragma unroll
        for (int t = 0; t < Rows; ++t) {
          const T* u = terms.u + (t < rows ? t : rows - 1) * terms.pitch;
          sums[t][o] = fmaf(load_float(u + term.from + l), b, sums[t][o]);
        }
      }
    }
  }
}

template <bool Packed, int Rows, int Outputs, typename View, typename T>
__global__ void __launch_bounds__(kWarps* kWarp)
    quantised_gemv_kernel(const T* x, int64_t x_pitch, int rows, View w, int64_t in, int64_t out, GemvTerms<T> terms,
                          float beta, GemvResult y) {
  const float* levels = shared_levels<View>();
  const int lane = threadIdx.x % kWarp;
  const int64_t first = (int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp) * Outputs;
  if (first >= out) return;
  const auto output = [&](int o) { return first + o < out ? first + o : out - 1; };
  const T* inputs[Rows];  // past the last row the last one is read again, and nothing is stored
#pragma unroll
  for (int t = 0; t < Rows; ++t) inputs[t] = x + (t < rows ? t : rows - 1) * x_pitch;

  float sums[Rows][Outputs] = {};
  for (int64_t chunk = 0; chunk < in; chunk += kChunk) {
    [[maybe_unused]] float of_block[Outputs] = {};
    if constexpr (View::kSharedScales) {
      const int64_t block = chunk / kNf4Block + lane;
#pragma unroll
      for (int o = 0; o < Outputs; ++o) {
        if (block * kNf4Block < in) of_block[o] = w.scale_of(output(o), block);
      }
    }
    for (int step = 0; step < kChunk && chunk + step < in; step += kAhead * kWarpCodes) {
      uint32_t words[kAhead][Outputs][View::kWords] = {};
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        const int64_t i = chunk + step + k * kWarpCodes + lane * kCodes;
#pragma unroll
        for (int o = 0; o < Outputs; ++o) {
          if (i < in) w.template load<Packed>(output(o), i, in - i, words[k][o]);
        }
      }
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        const int64_t i = chunk + step + k * kWarpCodes + lane * kCodes;
        float v[Outputs][kGroup];
        if constexpr (View::kSharedScales) {
          const int from = (step + k * kWarpCodes) / static_cast<int>(kNf4Block) + lane / kNf4Lanes;
#pragma unroll
          for (int o = 0; o < Outputs; ++o)
            w.values(words[k][o], levels, __shfl_sync(kAllLanes, of_block[o], from), v[o]);
        }
        if (i >= in) continue;
#pragma unroll
        for (int o = 0; o < Outputs; ++o) {
          if constexpr (!View::kSharedScales) w.values(words[k][o], output(o), i, in - i, v[o]);
          round_as<std::is_same_v<T, bf16>>(w.rounding, v[o]);
          if constexpr (std::is_same_v<T, bf16>) through_bf16(v[o]);
        }
        add_group<Packed>(inputs, i, in, v, sums);
      }
    }
  }
  add_terms(terms, rows, first, sums);
  store_sums(sums, rows, first, out, 1.0f, beta, y);
}

template <typename T>
GemvTerms<T> terms_of(const LowRankTerms& low_rank) {
  GemvTerms<T> made{};
  if (low_rank.terms.empty()) return made;
  made.u = low_rank.u.as<T>();
  made.pitch = low_rank.u.pitch;
  int from = 0;
  for (const LowRank& term : low_rank.terms) {
    const int rank = static_cast<int>(term.b.cols);
    made.term[made.count++] = {term.b.as<T>(), term.b.pitch, term.column, term.b.rows, rank, from};
    from += rank;
  }
  return made;
}

}  // namespace

bool quantised_gemv_takes(Tensor x, std::span<const LowRank> terms, Tensor u) {
  bool takes = x.rows <= kGemvRows && terms.size() <= kQuantisedGemvTerms && (terms.empty() || u.dtype == x.dtype);
  for (const LowRank& term : terms) takes = takes && term.b.dtype == x.dtype;
  return takes;
}

void quantised_gemv(cudaStream_t stream, Tensor x, const Weight& w, const LowRankTerms& low_rank, float beta,
                    Tensor y) {
  require(
      quantised_gemv_takes(x, low_rank.terms, low_rank.u) && x.cols == w.in() && y.rows == x.rows && y.cols == w.out(),
      "a few rows are multiplied by a weight of as many columns");
  const bool packed = rows_of_eight(x) && codes_are_packed(w);
  with_view(w, [&](const auto& view) {
    using View = std::remove_cvref_t<decltype(view)>;
    with_type(x, [&](const auto* xs) {
      using T = element<decltype(xs)>;
      with_rows(x.rows, [&](auto rows) {
        const auto with_outputs = [&](auto outputs) {
          const auto kernel = packed ? quantised_gemv_kernel<true, rows(), outputs(), View, T>
                                     : quantised_gemv_kernel<false, rows(), outputs(), View, T>;
          const unsigned grid = x.rows == 0 ? 0 : grid_of(w.out(), kWarps * outputs());
          launch("quantised_gemv", kernel, grid, kWarps * kWarp, 0, stream, xs, x.pitch, static_cast<int>(x.rows), view,
                 w.in(), w.out(), terms_of<T>(low_rank), beta, gemv_result(y));
        };
        w.out() <= kNarrow ? with_outputs(std::integral_constant<int, 2>{})
                           : with_outputs(std::integral_constant<int, 4>{});
      });
    });
  });
}

}  // namespace drover::cuda
