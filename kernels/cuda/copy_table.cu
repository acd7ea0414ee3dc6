#include <cstring>

#include "kernels/cuda/copy_table.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/walk.h"

namespace drover::cuda {

namespace {

// Rows of `packs` packs each; its first pack is number `first` of all.
struct Piece {
  const float* from;
  void* to;
  int64_t from_pitch, to_pitch, first, packs;  // no gaps: tables are compared by their bytes
};

template <int N, typename To>
__global__ void copy_table_kernel(const Piece* pieces, int count, int64_t packs) {
  const int64_t at = int64_t{blockIdx.x} * kWalkThreads + threadIdx.x;
  if (at >= packs) return;
  int low = 0, high = count;  // the last piece that begins at or before `at`
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (pieces[middle].first <= at ? low : high) = middle;
  }
  const Piece piece = pieces[low];
  const unsigned own = static_cast<unsigned>(at - piece.first), packs_of_row = static_cast<unsigned>(piece.packs),
                 row = own / packs_of_row, pack = own - row * packs_of_row;
  float v[N];
  load_pack(piece.from + row * piece.from_pitch + pack * N, v);
  store_pack(static_cast<To*>(piece.to) + row * piece.to_pitch + pack * N, v);
}

}  // namespace

bool CopyTable::takes(std::span<const CopyPair> pairs) {
  if (pairs.empty()) return false;
  const DType to = pairs.front().to.dtype;
  for (const CopyPair& pair : pairs) {
    if (pair.from.dtype != DType::f32 || pair.to.dtype != to || pair.from.size() == 0 || pair.from.size() > 0x7fffffff)
      return false;
  }
  return to == DType::f32 || to == DType::bf16;
}

void CopyTable::copy(std::span<const CopyPair> pairs) {
  int width = 8;
  for (const CopyPair& pair : pairs) {
    const Tensor both[] = {pair.from, pair.to};
    width = std::min(width, pack_width(both));
  }
  std::vector<Piece> pieces;
  int64_t packs = 0;
  for (const auto& [from, to] : pairs) {
    pieces.push_back({from.as<float>(), to.data, from.pitch, to.pitch, packs, from.cols / width});
    packs += from.rows * (from.cols / width);
  }
  std::vector<char> image(pieces.size() * sizeof(Piece));
  std::memcpy(image.data(), pieces.data(), image.size());
  if (image != image_) {
    image_.clear();  // not to be taken for what lies there if this fails half-way
    device_.put(image, uploader_, traffic_);
    image_ = std::move(image);
  }
  const auto go = [&](auto n) {
    with_type(pairs.front().to, [&](auto* to) {
      launch("copy_all", copy_table_kernel<n(), element<decltype(to)>>, grid_of(packs, kWalkThreads), kWalkThreads, 0,
             stream_, reinterpret_cast<const Piece*>(device_.device()), static_cast<int>(pieces.size()), packs);
    });
  };
  if (width == 8) return go(std::integral_constant<int, 8>{});
  if (width == 4) return go(std::integral_constant<int, 4>{});
  go(std::integral_constant<int, 1>{});
}

void CudaBackend::do_copy_all(std::span<const CopyPair> pairs) {
  if (!CopyTable::takes(pairs)) return Backend::do_copy_all(pairs);
  copies_->copy(pairs);
}

}  // namespace drover::cuda
