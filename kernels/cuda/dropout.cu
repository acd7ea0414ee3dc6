// Dropout whose decisions depend on (document, position, column) alone, the same on every backend: a Philox4x32-10
// block decides four columns. Source: Salmon et al., SC 2011; kernels/base/philox.h.
#include "kernels/base/philox.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/walk.h"

namespace drover::cuda {

namespace {

struct Decision {
  PhiloxKey key;
  float p, scale;
  const int32_t *documents, *positions;
  int64_t column_offset;  // packs of more than one column begin at a multiple of 4
};

// y[t,i] = (Accumulate ? y[t,i] : 0) + (kept ? x[t,i]/(1-p) : 0)
template <int N, bool Accumulate, typename X, typename Y>
__global__ void dropout_kernel(Walk w, const X* x, int64_t x_pitch, Decision d, Y* y, int64_t y_pitch) {
  const Spot at = spot_of(w);
  if (!at.inside) return;
  const uint64_t token =
      uint64_t{static_cast<uint32_t>(d.documents[at.row])} << 32 | static_cast<uint32_t>(d.positions[at.row]);
  const uint64_t column = static_cast<uint64_t>(d.column_offset + at.pack * N);
  Y* out = y + at.row * y_pitch + at.pack * N;
  float v[N], sum[N] = {};
  load_pack(x + at.row * x_pitch + at.pack * N, v);
  if constexpr (Accumulate) load_pack(out, sum);
  float draw[N];
  if constexpr (N == 1) {
    draw[0] = philox_uniform(d.key, column, token);
  } else {
#pragma unroll
    for (int j = 0; j < N; j += 4) {
      const PhiloxBlock block = philox(d.key, column / 4 + j / 4, token);
#pragma unroll
      for (int lane = 0; lane < 4; ++lane) draw[j + lane] = static_cast<float>(block.lane[lane] >> 8) * 0x1p-24f;
    }
  }
#pragma unroll
  for (int j = 0; j < N; ++j) sum[j] += draw[j] >= d.p ? v[j] * d.scale : 0.0f;
  store_pack(out, sum);
}

template <bool Accumulate>
void drop(cudaStream_t stream, Tensor x, const DropoutMask& mask, Tensor y) {
  const Decision d{PhiloxKey::of(mask.key),
                   mask.p,
                   1.0f / (1.0f - mask.p),
                   as_row(mask.documents).as<int32_t>(),
                   as_row(mask.positions).as<int32_t>(),
                   mask.column_offset};
  const auto by = [&](auto n) {
    with_type(x, [&](const auto* from) {
      with_type(y, [&](auto* to) {
        const Walk w = walk(x.rows, x.cols / n());
        launch("dropout", dropout_kernel<n(), Accumulate, element<decltype(from)>, element<decltype(to)>>, w.grid,
               kWalkThreads, 0, stream, w, from, x.pitch, d, to, y.pitch);
      });
    });
  };
  if (mask.column_offset % 4 != 0) return by(std::integral_constant<int, 1>{});  // a shard of odd width
  with_width({x, y}, by);
}

}  // namespace

void CudaBackend::do_dropout(Tensor x, const DropoutMask& mask, Tensor y) { drop<false>(stream_, x, mask, y); }
void CudaBackend::do_dropout_add(Tensor x, const DropoutMask& mask, Tensor y) { drop<true>(stream_, x, mask, y); }

}  // namespace drover::cuda
