#include "kernels/base/quantise.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/fp8_operand.h"

namespace drover::cuda {

namespace {

constexpr int kRun = Fp8Depth::kBlock, kLaneValues = kRun / kWarp, kWarps = 8, kRowThreads = 256, kTile = 32;

__device__ inline uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }
__device__ inline uint32_t warp_largest(uint32_t v) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) v = larger(v, __shfl_xor_sync(kAllLanes, v, offset));
  return v;
}

// Where a run begins and its part ends. Unrolled, so that nothing is indexed that would have to lie in memory.
struct Place {
  int64_t begin, end;
};
__device__ inline Place place_of(const Fp8Depth& depth, int64_t run) {
  Place place{0, 0};
#pragma unroll
  for (int i = 0; i < Fp8Depth::kMostParts; ++i) {
    if (i < depth.parts && run >= depth.first_run[i])
      place = {depth.begin[i] + (run - depth.first_run[i]) * kRun, depth.end[i]};
  }
  return place;
}

template <typename X>
struct Source {
  const X* values;
  int64_t pitch, rows, cols;
};

// A warp quantises a run of a row. Rows beyond x's are zeros.
template <typename X>
__global__ void __launch_bounds__(kWarps* kWarp)
    quantise_runs_kernel(Source<X> x, int64_t all_rows, Fp8Depth depth, float bound, uint8_t* codes, float* scales) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp, run = blockIdx.y;
  if (row >= all_rows) return;
  const Place place = place_of(depth, run);
  const int lane = threadIdx.x % kWarp;
  float v[kLaneValues];
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) {
    const int64_t column = place.begin + i * kWarp + lane;
    v[i] = row < x.rows && column < place.end ? load_float(x.values + row * x.pitch + column) : 0.0f;
    largest = larger(largest, magnitude_bits(v[i]));
  }
  const float scale = fp8_scale(warp_largest(largest), bound);
  uint8_t* to = codes + (row * depth.runs + run) * kRun;
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) to[i * kWarp + lane] = fp8_code(v[i], scale);
  if (lane == 0) scales[run * all_rows + row] = scale;
}

// Of the row of w that a column is: scales[row[column]]. Null: none.
struct Times {
  const float* scales;
  const int32_t* row;
};

// A block quantises a row of one run.
template <typename X>
__global__ void __launch_bounds__(kRowThreads)
    quantise_rows_kernel(Source<X> x, Times times, float bound, uint8_t* codes, float* scales) {
  const int64_t row = blockIdx.x;
  const auto value = [&](int64_t column) {
    if (row >= x.rows) return 0.0f;
    const float v = load_float(x.values + row * x.pitch + column);
    return times.scales == nullptr ? v : v * times.scales[times.row[column]];
  };
  uint32_t largest = 0;
  for (int64_t i = threadIdx.x; i < x.cols; i += kRowThreads) largest = larger(largest, magnitude_bits(value(i)));
  largest = block_reduce<kRowThreads>(largest, 0u, [](uint32_t v) { return warp_largest(v); });
  const float scale = fp8_scale(largest, bound);
  for (int64_t i = threadIdx.x; i < x.cols; i += kRowThreads) codes[row * x.cols + i] = fp8_code(value(i), scale);
  if (threadIdx.x == 0) scales[row] = scale;
}

// to (rows, depth): rows of w, 16 codes a thread, zeros behind them.
__global__ void __launch_bounds__(kRowThreads)
    pad_codes_kernel(const uint8_t* from, int64_t pitch, int64_t cols, uint8_t* to, int64_t depth) {
  const int64_t column = (int64_t{blockIdx.y} * kRowThreads + threadIdx.x) * 16, row = blockIdx.x;
  if (column >= depth) return;
  const uint4 none{0, 0, 0, 0};
  *reinterpret_cast<uint4*>(to + row * depth + column) =
      column < cols ? *reinterpret_cast<const uint4*>(from + row * pitch + column) : none;
}

// to (cols, depth): a run's rows of w become a run of columns.
__global__ void __launch_bounds__(kTile* kWarps)
    transpose_codes_kernel(const uint8_t* from, int64_t pitch, int64_t cols, Fp8Depth depth, uint8_t* to,
                           int64_t to_pitch) {
  __shared__ uint8_t tile[kTile][kTile + 4];
  const int64_t at = int64_t{blockIdx.x} * kTile, col = int64_t{blockIdx.y} * kTile;  // in depth; of w
  int64_t row = at, end = depth.count;
  if (depth.blocks) {
    const Place place = place_of(depth, at / kRun);
    row = place.begin + at % kRun;
    end = place.end;
  }
  const int x = threadIdx.x % kTile;
  for (int y = threadIdx.x / kTile; y < kTile; y += kWarps)
    tile[y][x] = row + y < end && col + x < cols ? from[(row + y) * pitch + col + x] : uint8_t{0};
  __syncthreads();
  for (int y = threadIdx.x / kTile; y < kTile; y += kWarps) {
    if (col + y < cols && at + x < to_pitch) to[(col + y) * to_pitch + at + x] = tile[x][y];
  }
}

// Of row r and column c: from[row_of[r]·row_stride + c·col_stride], 1 without `from`.
struct ScaleTable {
  const float* from;
  const int32_t* row_of;  // null: r
  int64_t row_stride, col_stride;
};

// to (rows, pitch); 0 behind the columns.
__global__ void __launch_bounds__(kRowThreads)
    gather_scales_kernel(ScaleTable table, int64_t rows, int64_t cols, float* to, int64_t pitch) {
  const int64_t at = int64_t{blockIdx.x} * kRowThreads + threadIdx.x;
  if (at >= rows * pitch) return;
  const int64_t r = at / pitch, c = at % pitch, row = table.row_of == nullptr ? r : table.row_of[r];
  to[at] = c >= cols ? 0.0f : table.from == nullptr ? 1.0f : table.from[row * table.row_stride + c * table.col_stride];
}

Fp8Depth depth_of(bool blocks, std::span<const int64_t> counts) {
  require(counts.size() <= static_cast<size_t>(Fp8Depth::kMostParts), "a weight has few parts");
  Fp8Depth depth{.blocks = blocks};
  for (const int64_t count : counts) {
    const int i = depth.parts++;
    depth.begin[i] = depth.count;
    depth.end[i] = depth.count += count;
    depth.first_run[i] = depth.runs;
    depth.runs += blocks ? (count + kRun - 1) / kRun : 1;
  }
  return depth;
}

bool in_blocks(const Fp8Weight& w) { return w.blocks.columns != 0; }

}  // namespace

Fp8Depth input_depth(const Fp8Weight& w) {
  const int64_t all = w.in();
  return depth_of(in_blocks(w), {&all, 1});
}

Fp8Depth output_depth(const Fp8Weight& w) {
  std::vector<int64_t> counts{w.out()};
  if (in_blocks(w)) {
    counts.clear();
    for (const Scaling::Part& part : w.parts()) counts.push_back(part.rows);
  }
  return depth_of(in_blocks(w), counts);
}

Fp8Operands::~Fp8Operands() { cudaFree(memory_); }

char* Fp8Operands::memory() {
  if (memory_ == nullptr) {
    check(cudaMalloc(&memory_, static_cast<size_t>(kBytes)), "cudaMalloc");
    ++traffic_.allocations;
    traffic_.allocated_bytes += kBytes;
  }
  return static_cast<char*>(memory_);
}

int64_t Fp8Operands::rows_at_once(int64_t all, const Fp8Depth& depth) {
  const int64_t most = std::min({kMostRows, kCodeBytes / depth.depth(), kScaleBytes / 4 / depth.runs}) / 16 * 16;
  require(most > 0, "rows of codes fit their memory");
  const int64_t parts = (all + most - 1) / most;
  return parts <= 1 ? all : rounded_up_to((all + parts - 1) / parts, 16);
}

Fp8Operand Fp8Operands::quantise(Tensor x, const Fp8Depth& depth, float bound, const Fp8Weight* times) {
  const int64_t rows = rounded_up_to(x.rows, 16);
  auto* codes = reinterpret_cast<uint8_t*>(memory());
  require(rows * depth.depth() <= kCodeBytes && rows * depth.runs * 4 <= kScaleBytes, "codes fit their memory");
  const Fp8Operand to{matrix(codes, rows, depth.depth(), DType::u8, Where::device), scales()};
  with_type(x, [&](auto* from) {
    using X = element<decltype(from)>;
    const Source<X> source{from, x.pitch, x.rows, x.cols};
    if (depth.blocks) {
      const dim3 grid(grid_of(rows, kWarps), static_cast<unsigned>(depth.runs));
      launch("quantise_runs", quantise_runs_kernel<X>, grid, kWarps * kWarp, 0, stream_, source, rows, depth, bound,
             codes, scales());
    } else {
      const Times by =
          times == nullptr ? Times{nullptr, nullptr} : Times{times->scales.as<float>(), times->scale_row.as<int32_t>()};
      launch("quantise_rows", quantise_rows_kernel<X>, static_cast<unsigned>(rows), kRowThreads, 0, stream_, source, by,
             bound, codes, scales());
    }
  });
  return to;
}

// (rows, cols rounded up to 4), or a vector.
float* Fp8Operands::weight_scales(const float* from, const int32_t* row_of, int64_t rows, int64_t cols,
                                  Strides strides) {
  auto* to = reinterpret_cast<float*>(memory() + kCodeBytes + kScaleBytes);
  const int64_t pitch = cols == 0 ? 1 : rounded_up_to(cols, 4);
  require(rows * pitch * 4 <= kWeightScaleBytes, "a weight's scales fit their memory");
  launch("gather_scales", gather_scales_kernel, grid_of(rows * pitch, kRowThreads), kRowThreads, 0, stream_,
         {from, row_of, strides.row, strides.col}, rows, std::max<int64_t>(cols, 1), to, pitch);
  return to;
}

Fp8Operand Fp8Operands::rows_of(const Fp8Weight& w, const Fp8Depth& depth, int64_t begin, int64_t count, Tensor panel) {
  Tensor codes = w.codes.rows_from(begin, count);
  if (depth.depth() != w.in()) {
    const dim3 grid(static_cast<unsigned>(count), grid_of(depth.depth() / 16, kRowThreads));
    launch("pad_codes", pad_codes_kernel, grid, kRowThreads, 0, stream_, codes.as<uint8_t>(), codes.pitch, w.in(),
           panel.as<uint8_t>(), panel.pitch);
    codes = panel;
  }
  if (!depth.blocks)
    return {codes, weight_scales(w.scales.as<float>(), w.scale_row.as<int32_t>() + begin, count, 0, {1, 0})};
  // A part's blocks follow each other, from the block that its first row lies in.
  int64_t row = 0, block = 0;
  for (const Scaling::Part& part : w.parts()) {
    if (begin < row + part.rows) break;
    row += part.rows;
    block += blocks_touched(part.row, part.rows, w.blocks.rows);
  }
  require((begin - row) % kRun == 0, "rows begin a block");
  const float* from = w.scales.as<float>() + (block + (begin - row) / kRun) * w.scales.pitch;
  return {codes, weight_scales(from, nullptr, (count + kRun - 1) / kRun, depth.runs, {w.scales.pitch, 1})};
}

Fp8Operand Fp8Operands::columns_of(const Fp8Weight& w, const Fp8Depth& depth, int64_t begin, int64_t count,
                                   Tensor panel) {
  const dim3 grid(grid_of(depth.depth(), kTile), grid_of(count, kTile));
  launch("transpose_codes", transpose_codes_kernel, grid, kTile * kWarps, 0, stream_,
         w.codes.columns(begin, count).as<uint8_t>(), w.codes.pitch, count, depth, panel.as<uint8_t>(), panel.pitch);
  if (!depth.blocks) return {panel, weight_scales(nullptr, nullptr, count, 0, {0, 0})};
  require(begin % kRun == 0, "columns begin a block");
  const float* from = w.scales.as<float>() + begin / kRun;
  return {panel, weight_scales(from, nullptr, (count + kRun - 1) / kRun, depth.runs, {1, w.scales.pitch})};
}

}  // namespace drover::cuda
