// A warp widens four rows of 256 columns, sixteen bytes of NF4 or thirty-two of fp8 a lane, all on their way at once;
// neighbouring lanes read and write what lies next to each other. Memory is what it waits for: 2.5 bytes move for an
// NF4 value in bf16, 3 for an fp8 one.
#include "kernels/cuda/dequantise.h"
#include "kernels/cuda/quantised.h"
#include "kernels/cuda/weight.h"

namespace drover::cuda {

namespace {

constexpr int kRows = 4;   // of a warp
constexpr int kWarps = 8;  // of a block, side by side

// Rows [row, end_row) and columns [col, end_col); begin: of the block of 64 that holds the first column.
struct Window {
  int64_t row, end_row, col, end_col, begin;
};

template <bool Packed, typename To>
__device__ inline void put(const float (&v)[kCodes], To* to, int64_t column, const Window& window) {
  if constexpr (Packed) {
    if (column >= window.col) store_pack(to + (column - window.col), v);
  } else {
#pragma unroll
    for (int i = 0; i < kCodes; ++i) {
      if (column + i >= window.col && column + i < window.end_col) store_float(to + (column + i - window.col), v[i]);
    }
  }
}

// Packed: the window's columns are whole groups of eight, and those of the codes and of `to` lie on the boundaries that
// their packs need.
template <bool Packed, typename View, typename To>
__global__ void __launch_bounds__(kWarps* kWarp)
    dequantise_kernel(View w, int64_t in, Window window, To* to, int64_t pitch) {
  const float* levels = shared_levels<View>();
  const int lane = threadIdx.x % kWarp;
  const int64_t first = window.row + int64_t{blockIdx.x} * kRows;
  const int64_t begin = window.begin + (int64_t{blockIdx.y} * kWarps + threadIdx.x / kWarp) * kWarpCodes;
  if (begin >= window.end_col) return;
  const int64_t column = begin + lane * kCodes;
  const bool inside = column < window.end_col;
  const auto row_of = [&](int r) { return first + r < window.end_row ? first + r : window.end_row - 1; };

  uint32_t words[kRows][View::kWords] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (inside) w.template load<Packed>(row_of(r), column, in - column, words[r]);
  }
  [[maybe_unused]] float mine = 0;  // lane 4r + b has the scale of row r and block b
  if constexpr (View::kSharedScales) {
    const int64_t block = begin / kNf4Block + lane % 4;
    if (lane < 4 * kRows && block * kNf4Block < window.end_col) mine = w.scale_of(row_of(lane / 4), block);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float v[kCodes];
    if constexpr (View::kSharedScales) {
      w.values(words[r], levels, __shfl_sync(kAllLanes, mine, 4 * r + lane / kNf4Lanes), v);
    }
    if (!inside || first + r >= window.end_row) continue;
    if constexpr (!View::kSharedScales) w.values(words[r], first + r, column, in - column, v);
    round_as<std::is_same_v<To, bf16>>(w.rounding, v);
    put<Packed>(v, to + (first + r - window.row) * pitch, column, window);
  }
}

constexpr int64_t kColumns = 64;  // panels are cut in multiples of it, and their rows lie so many elements apart
int64_t rounded_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// How many of `all` at once, in equal parts, where at most `most` are possible.
int64_t even_part(int64_t all, int64_t most) {
  if (all <= most) return all;
  if (most >= kColumns) most -= most % kColumns;
  const int64_t parts = (all + most - 1) / most;
  return std::min(most, rounded_up((all + parts - 1) / parts, kColumns));
}

}  // namespace

Dequantiser::~Dequantiser() { cudaFree(panel_); }

void Dequantiser::expect(const Weight& w) {
  const int64_t strip = low_rank_strip(w.adapter_rank());
  const int64_t whole =
      std::max(w.out() * rounded_up(w.in() + strip, kColumns), (w.out() + strip) * rounded_up(w.in(), kColumns)) *
      size_of(DType::bf16);
  expected_bytes_ = std::max(expected_bytes_, std::min(whole, most_panel_bytes_));
}

int64_t Dequantiser::panel_rows(const Weight& w, int64_t strip, DType dtype) const {
  const int64_t row = rounded_up(w.in() + strip, kColumns) * size_of(dtype);
  return even_part(w.out(), std::max<int64_t>(expected_bytes_ / row, 1));
}

int64_t Dequantiser::panel_columns(const Weight& w, int64_t strip, DType dtype) const {
  const int64_t columns = kColumns * (w.out() + strip) * size_of(dtype);
  return even_part(w.in(), std::max<int64_t>(expected_bytes_ / columns, 1) * kColumns);
}

Tensor Dequantiser::panel(int64_t rows, int64_t cols, DType dtype) {
  const int64_t pitch = rounded_up(cols, kColumns), bytes = std::max(expected_bytes_, rows * pitch * size_of(dtype));
  if (bytes > panel_bytes_) {
    cudaFree(panel_);  // waits for work that uses it
    panel_ = nullptr;
    traffic_.allocated_bytes -= panel_bytes_;
    panel_bytes_ = 0;
    check(cudaMalloc(&panel_, static_cast<size_t>(bytes)), "cudaMalloc");
    ++traffic_.allocations;
    traffic_.allocated_bytes += bytes;
    panel_bytes_ = bytes;
  }
  return {panel_, rows, cols, pitch, dtype, Where::device};
}

void Dequantiser::operator()(const Weight& weight, int64_t row, int64_t col, Tensor to) {
  require(row >= 0 && row + to.rows <= weight.out() && col >= 0 && col + to.cols <= weight.in(),
          "what is widened lies in the weight");
  const bool packed = col % kCodes == 0 && rows_of_eight(to) && codes_are_packed(weight);
  const Window window{row, row + to.rows, col, col + to.cols, col / kNf4Block * kNf4Block};
  const int64_t across = (window.end_col - window.begin + kWarpCodes - 1) / kWarpCodes;
  const dim3 grid(to.cols == 0 ? 0 : grid_of(to.rows, kRows), grid_of(across, kWarps));
  with_view(weight, [&](const auto& view) {
    using View = std::remove_cvref_t<decltype(view)>;
    with_type(to, [&](auto* values) {
      using To = element<decltype(values)>;
      const auto kernel = packed ? dequantise_kernel<true, View, To> : dequantise_kernel<false, View, To>;
      launch("dequantise", kernel, grid, kWarps * kWarp, 0, stream_, view, weight.in(), window, values, to.pitch);
    });
  });
}

}  // namespace drover::cuda
