// A block takes some rows of dy by 512 columns (256 for ranks above 16) in steps of 64 × 128 that are copied to shared
// memory while earlier ones are multiplied. Its four warps each have 16 rows of v, complete for these columns after a
// row of steps, and in every step 32 columns of grad_b, complete for these rows at the end. These sums over a part of
// the columns or rows go to memory, and a second kernel adds them in order: the bits do not change from run to run.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/low_rank.h"
#include "kernels/cuda/tensor_core.h"

namespace drover::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kStepRows = 64, kStepColumns = 128;
constexpr int kStages = 4;  // steps in shared memory: one is multiplied, the others are on their way
constexpr int kGroup = 8;   // elements of one copy
constexpr int kPitch =
    kStepColumns + kGroup;  // of a step's rows: an odd number of 16-byte words, so that neighbours lie in other banks
constexpr int kStepElements = kStepRows * kPitch;
constexpr int kRowsOfWarp = kTensorTile, kColumnsOfWarp = 32;
constexpr int kTilesAcross = kColumnsOfWarp / kTensorTile;  // of a warp's share of grad_b in a step
static_assert(kThreads / kWarp * kRowsOfWarp == kStepRows && kThreads / kWarp * kColumnsOfWarp == kStepColumns);

constexpr int64_t kFewestRows = 256;  // of a block: its partial sums of grad_b are an eighth of what it reads then
constexpr int64_t kBlocks = 2 * 132;  // as many as run at once, where the rows can be divided so

constexpr int steps_across(int tiles) { return tiles == 1 ? 4 : 2; }  // tiles of 16 ranks
constexpr int columns_of_block(int tiles) { return steps_across(tiles) * kStepColumns; }
constexpr int narrow_pitch(int tiles) { return tiles * kTensorTile + kGroup; }  // of u and b in shared memory
constexpr int shared_elements(int tiles) {
  return kStages * (kStepElements + kStepRows * narrow_pitch(tiles)) + columns_of_block(tiles) * narrow_pitch(tiles);
}

struct Term {
  const bf16 *u, *b;
  int64_t u_pitch, b_pitch, grad_b_pitch;
  float* grad_b;
  float scale;
  int column, columns;  // of dy
  int rank, rank_column;
  int first_block;  // of all terms' blocks of columns
};

struct Work {
  const bf16* dy;
  int64_t dy_pitch;
  int rows, rows_of_block, row_blocks, column_blocks;
  Term terms[LowRankBackward::kMostTerms];
  int count;
  float* v_parts;       // (column_blocks, row_blocks·rows_of_block, 16·tiles)
  float* grad_b_parts;  // (row_blocks, column_blocks·columns of a block, 16·tiles)
};

__device__ inline int at_most(int n, int most) { return n < most ? n : most; }

__device__ inline Term term_of_block(const Work& work, int block) {
  Term found = work.terms[0];
#pragma unroll
  for (int i = 1; i < static_cast<int>(LowRankBackward::kMostTerms); ++i) {
    if (i < work.count && block >= work.terms[i].first_block) found = work.terms[i];
  }
  return found;
}

// to (Rows, 16·Tiles) = from where that exists, else 0.
template <int Tiles, int Rows>
__device__ inline void copy_narrow(bf16* to, const bf16* from, int64_t pitch, int existing_rows, int rank) {
  constexpr int kThreadsOfRow = 2 * Tiles, kRowsAtOnce = kThreads / kThreadsOfRow;
  const int row = threadIdx.x / kThreadsOfRow, column = threadIdx.x % kThreadsOfRow * kGroup;
#pragma unroll 1
  for (int i = row; i < Rows; i += kRowsAtOnce) {
    const bool exists = i < existing_rows && column < rank;
    copy_16_bytes_or_zeros(to + i * narrow_pitch(Tiles) + column, exists ? from + i * pitch + column : from, exists);
  }
}

// to (kStepRows, kStepColumns) = from where that exists, else 0.
__device__ inline void copy_step(bf16* to, const bf16* from, int64_t pitch, int existing_rows, int existing_columns) {
  constexpr int kThreadsOfRow = kStepColumns / kGroup, kRowsAtOnce = kThreads / kThreadsOfRow;
  const int row = threadIdx.x / kThreadsOfRow, column = threadIdx.x % kThreadsOfRow * kGroup;
  to += row * kPitch + column;
  from += row * pitch + column;
  if (existing_rows >= kStepRows && existing_columns >= kStepColumns) {
#pragma unroll
    for (int i = 0; i < kStepRows; i += kRowsAtOnce, from += kRowsAtOnce * pitch) copy_16_bytes(to + i * kPitch, from);
    return;
  }
  const bf16* const some = from - row * pitch - column;
#pragma unroll 1
  for (int i = 0; i < kStepRows; i += kRowsAtOnce, from += kRowsAtOnce * pitch) {
    const bool exists = row + i < existing_rows && column < existing_columns;
    copy_16_bytes_or_zeros(to + i * kPitch, exists ? from : some, exists);
  }
}

template <int Tiles>
__global__ void __launch_bounds__(kThreads, 2) low_rank_kernel(const Work work) {
  constexpr int kSteps = steps_across(Tiles), kNarrow = narrow_pitch(Tiles), kRank = Tiles * kTensorTile;
  bf16* const tiles = reinterpret_cast<bf16*>(dynamic_shared());  // dy: kStages steps
  bf16* const u_tiles = tiles + kStages * kStepElements;          // u next to the rows of up to kStages rows of steps
  bf16* const b_tile = u_tiles + kStages * kStepRows * kNarrow;   // b next to the block's columns
  const int warp = threadIdx.x / kWarp;
  const Term term = term_of_block(work, static_cast<int>(blockIdx.x));
  const int first_column = (static_cast<int>(blockIdx.x) - term.first_block) * columns_of_block(Tiles);
  const int columns = at_most(term.columns - first_column, columns_of_block(Tiles)),
            steps = (columns + kStepColumns - 1) / kStepColumns;
  const int first_row = static_cast<int>(blockIdx.y) * work.rows_of_block;
  const int rows = at_most(work.rows - first_row, work.rows_of_block), row_steps = (rows + kStepRows - 1) / kStepRows;
  const bf16* const dy = work.dy + first_row * work.dy_pitch + term.column + first_column;

  int next_row = 0, next_step = 0, next_stage = 0;  // what is copied next
  const auto copy_next = [&] {
    if (next_row < row_steps) {
      const int existing_rows = rows - next_row * kStepRows;
      copy_step(tiles + next_stage * kStepElements,
                dy + int64_t{next_row} * kStepRows * work.dy_pitch + next_step * kStepColumns, work.dy_pitch,
                existing_rows, columns - next_step * kStepColumns);
      if (next_step == 0) {
        copy_narrow<Tiles, kStepRows>(u_tiles + next_row % kStages * kStepRows * kNarrow,
                                      term.u + (first_row + next_row * kStepRows) * term.u_pitch, term.u_pitch,
                                      existing_rows, term.rank);
      }
      next_stage = (next_stage + 1) % kStages;
      if (++next_step == steps) next_step = 0, ++next_row;
    }
    __pipeline_commit();  // an empty one too, so that they can be counted
  };

  copy_narrow<Tiles, columns_of_block(Tiles)>(b_tile, term.b + first_column * term.b_pitch, term.b_pitch, columns,
                                              term.rank);
  for (int i = 0; i + 1 < kStages; ++i) copy_next();

  SumTile grad_b[kSteps][kTilesAcross][Tiles];
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
#pragma unroll
    for (int i = 0; i < kTilesAcross; ++i) {
#pragma unroll
      for (int t = 0; t < Tiles; ++t) clear(grad_b[s][i][t]);
    }
  }
  const int64_t padded_rows = int64_t{work.row_blocks} * work.rows_of_block;
  const TileSource b_source(b_tile, kNarrow);
  int stage = 0;
#pragma unroll 1
  for (int row_step = 0; row_step < row_steps; ++row_step) {
    RightTile of_u[kStepRows / kTensorTile][Tiles];
    SumTile v[Tiles];
#pragma unroll
    for (int t = 0; t < Tiles; ++t) clear(v[t]);
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      if (s >= steps) continue;
      __pipeline_wait_prior(kStages - 2);
      __syncthreads();  // everybody's copies of this step are there, and all have left the step before, whose place is
                        // filled next
      copy_next();
      const TileSource source(tiles + stage * kStepElements, kPitch);
      stage = (stage + 1) % kStages;
      if (s == 0) {
        const TileSource u_source(u_tiles + row_step % kStages * kStepRows * kNarrow, kNarrow);
#pragma unroll
        for (int k = 0; k < kStepRows / kTensorTile; ++k) {
#pragma unroll
          for (int t = 0; t < Tiles; ++t) of_u[k][t] = u_source.right(k * kTensorTile * kNarrow + t * kTensorTile);
        }
      }
#pragma unroll
      for (int k = 0; k < kStepColumns; k += kTensorTile) {
        const LeftTile of_dy = source.left(warp * kRowsOfWarp * kPitch + k);
#pragma unroll
        for (int t = 0; t < Tiles; ++t)
          add_product(v[t], of_dy, b_source.right((s * kStepColumns + k) * kNarrow + t * kTensorTile));
      }
#pragma unroll
      for (int k = 0; k < kStepRows / kTensorTile; ++k) {
#pragma unroll
        for (int i = 0; i < kTilesAcross; ++i) {
          const LeftTile of_dy =
              source.left_transposed(k * kTensorTile * kPitch + warp * kColumnsOfWarp + i * kTensorTile);
#pragma unroll
          for (int t = 0; t < Tiles; ++t) add_product(grad_b[s][i][t], of_dy, of_u[k][t]);
        }
      }
    }
    float* const to =
        work.v_parts + (blockIdx.x * padded_rows + first_row + row_step * kStepRows + warp * kRowsOfWarp) * kRank;
#pragma unroll
    for (int t = 0; t < Tiles; ++t) store(v[t], to + t * kTensorTile, kRank);
  }
  float* const to =
      work.grad_b_parts +
      ((int64_t{blockIdx.y} * work.column_blocks + blockIdx.x) * columns_of_block(Tiles) + warp * kColumnsOfWarp) *
          kRank;
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
#pragma unroll
    for (int i = 0; i < kTilesAcross; ++i) {
#pragma unroll
      for (int t = 0; t < Tiles; ++t)
        store(grad_b[s][i][t], to + (s * kStepColumns + i * kTensorTile) * kRank + t * kTensorTile, kRank);
    }
  }
}

constexpr int kAddThreads = 256;
constexpr int kPack = 4;  // neighbouring results of a thread

// parts[0] + parts[1] + …, `stride` floats apart.
__device__ inline void add_parts(const float* parts, int count, int64_t stride, float (&sum)[kPack]) {
#pragma unroll
  for (int j = 0; j < kPack; ++j) sum[j] = 0;
#pragma unroll 4
  for (int i = 0; i < count; ++i) {
    float part[kPack];
    load_pack(parts + i * stride, part);
#pragma unroll
    for (int j = 0; j < kPack; ++j) sum[j] += part[j];
  }
}

// The first rows·v_columns/4 threads each finish four columns of a row of v, the next ones four ranks of a row of some
// grad_b.
template <int Tiles>
__global__ void __launch_bounds__(kAddThreads)
    add_parts_kernel(const Work work, bf16* v, int64_t v_pitch, int v_columns) {
  constexpr int kRank = Tiles * kTensorTile;
  const int64_t padded_rows = int64_t{work.row_blocks} * work.rows_of_block;
  int64_t at = int64_t{blockIdx.x} * kAddThreads + threadIdx.x;
  const int packs = v_columns / kPack;
  if (at < int64_t{work.rows} * packs) {
    const int row = static_cast<int>(at / packs), column = static_cast<int>(at % packs) * kPack;
    float sum[kPack] = {};
#pragma unroll
    for (int i = 0; i < static_cast<int>(LowRankBackward::kMostTerms); ++i) {
      const Term& term = work.terms[i];
      if (i >= work.count || column < term.rank_column || column >= term.rank_column + term.rank) continue;
      const int blocks = (term.columns + columns_of_block(Tiles) - 1) / columns_of_block(Tiles);
      add_parts(work.v_parts + (term.first_block * padded_rows + row) * kRank + column - term.rank_column, blocks,
                padded_rows * kRank, sum);
#pragma unroll
      for (int j = 0; j < kPack; ++j) sum[j] *= term.scale;
    }
    store_pack(v + row * v_pitch + column, sum);
    return;
  }
  at -= int64_t{work.rows} * packs;
#pragma unroll
  for (int i = 0; i < static_cast<int>(LowRankBackward::kMostTerms); ++i) {
    if (i >= work.count || at < 0) return;
    const Term& term = work.terms[i];
    const int rank_packs = term.rank / kPack, all = term.columns * rank_packs;
    if (at < all) {
      const int row = static_cast<int>(at) / rank_packs, column = static_cast<int>(at) % rank_packs * kPack;
      float sum[kPack], old[kPack];
      add_parts(work.grad_b_parts + (int64_t{term.first_block} * columns_of_block(Tiles) + row) * kRank + column,
                work.row_blocks, int64_t{work.column_blocks} * columns_of_block(Tiles) * kRank, sum);
      float* const to = term.grad_b + row * term.grad_b_pitch + column;
      load_pack(to, old);
#pragma unroll
      for (int j = 0; j < kPack; ++j) sum[j] += old[j];
      store_pack(to, sum);
      return;
    }
    at -= all;
  }
}

constexpr int64_t kMostColumns = int64_t{1}
                                 << 18;  // so that the partial sums of a block of rows fit next to those of its rows

bool on_16_bytes(Tensor t) {
  return reinterpret_cast<uintptr_t>(t.data) % 16 == 0 && (t.rows <= 1 || t.pitch * size_of(t.dtype) % 16 == 0);
}

int64_t divided(int64_t n, int64_t by) { return (n + by - 1) / by; }

}  // namespace

bool LowRankBackward::takes(Tensor dy, std::span<const LowRankGradient> terms, Tensor v) {
  if (dy.rows == 0 || terms.empty() || terms.size() > kMostTerms || dy.dtype != DType::bf16 || v.dtype != DType::bf16)
    return false;
  if (!on_16_bytes(dy) || dy.cols > kMostColumns || v.cols % kPack != 0 ||
      reinterpret_cast<uintptr_t>(v.data) % 8 != 0 || (v.rows > 1 && v.pitch % kPack != 0))
    return false;
  for (const LowRankGradient& term : terms) {
    const int64_t rank = term.b.cols;
    const bool types = term.u.dtype == DType::bf16 && term.b.dtype == DType::bf16 && term.grad_b.dtype == DType::f32;
    if (!types || rank % kGroup != 0 || rank < kGroup || rank > kMostRank || term.b.rows % kGroup != 0 ||
        term.b.rows == 0 || term.column % kGroup != 0)
      return false;
    if (!on_16_bytes(term.u) || !on_16_bytes(term.b) || !on_16_bytes(term.grad_b)) return false;
  }
  return true;
}

LowRankBackward::~LowRankBackward() { cudaFree(partial_sums_); }

float* LowRankBackward::partial_sums(int64_t floats) {
  if (floats > floats_) {
    cudaFree(partial_sums_);  // waits for work that uses it
    traffic_.allocated_bytes -= floats_ * static_cast<int64_t>(sizeof(float));
    partial_sums_ = nullptr;
    floats_ = 0;
    check(cudaMalloc(reinterpret_cast<void**>(&partial_sums_), static_cast<size_t>(floats) * sizeof(float)),
          "cudaMalloc");
    floats_ = floats;
    ++traffic_.allocations;
    traffic_.allocated_bytes += floats_ * static_cast<int64_t>(sizeof(float));
  }
  return partial_sums_;
}

void LowRankBackward::operator()(Tensor dy, std::span<const LowRankGradient> terms, Tensor v) {
  int64_t most_rank = 0;
  for (const LowRankGradient& term : terms) most_rank = std::max(most_rank, term.b.cols);
  const int tiles = most_rank <= kTensorTile ? 1 : 2;
  Work work{.dy = nullptr, .dy_pitch = dy.pitch, .count = static_cast<int>(terms.size())};
  int64_t rank_column = 0, column_blocks = 0, gradients = 0;
  for (size_t i = 0; i < terms.size(); ++i) {
    const LowRankGradient& term = terms[i];
    const int64_t rank = term.b.cols;
    work.terms[i] = {.b = term.b.as<bf16>(),
                     .u_pitch = term.u.pitch,
                     .b_pitch = term.b.pitch,
                     .grad_b_pitch = term.grad_b.pitch,
                     .grad_b = term.grad_b.as<float>(),
                     .scale = term.scale,
                     .column = static_cast<int>(term.column),
                     .columns = static_cast<int>(term.b.rows),
                     .rank = static_cast<int>(rank),
                     .rank_column = static_cast<int>(rank_column),
                     .first_block = static_cast<int>(column_blocks)};
    rank_column += rank;
    column_blocks += divided(term.b.rows, columns_of_block(tiles));
    gradients += term.b.rows * rank / kPack;
  }
  work.column_blocks = static_cast<int>(column_blocks);
  const int64_t rank_width = tiles * kTensorTile,
                most_row_blocks = std::clamp<int64_t>(divided(dy.rows, kFewestRows), 1,
                                                      std::max<int64_t>(1, kBlocks / column_blocks));
  const int64_t grad_b_width = column_blocks * columns_of_block(tiles) * rank_width,
                v_width = column_blocks * rank_width;  // partial sums of a block of rows, of a row
  const int64_t left_for_v =
      most_floats_ -
      most_row_blocks * (grad_b_width + kStepRows * v_width);  // the rows of each block are rounded up to whole steps
  const int64_t most_rows = std::max<int64_t>(1, left_for_v / v_width / kStepRows) * kStepRows;
  for (int64_t begin = 0; begin < dy.rows; begin += most_rows) {
    const int64_t rows = std::min(most_rows, dy.rows - begin);
    const int64_t wanted = std::clamp<int64_t>(divided(rows, kFewestRows), 1, most_row_blocks);
    const int64_t rows_of_block = divided(divided(rows, wanted), kStepRows) * kStepRows,
                  row_blocks = divided(rows, rows_of_block);
    const int64_t v_floats = row_blocks * rows_of_block * v_width, grad_b_floats = row_blocks * grad_b_width;
    work.dy = dy.rows_from(begin, rows).as<bf16>();
    for (size_t i = 0; i < terms.size(); ++i) work.terms[i].u = terms[i].u.rows_from(begin, rows).as<bf16>();
    work.rows = static_cast<int>(rows);
    work.rows_of_block = static_cast<int>(rows_of_block);
    work.row_blocks = static_cast<int>(row_blocks);
    work.v_parts = partial_sums(v_floats + grad_b_floats);
    work.grad_b_parts = work.v_parts + v_floats;
    const Tensor v_rows = v.rows_from(begin, rows);
    const auto go = [&](auto n) {
      const dim3 grid{static_cast<unsigned>(column_blocks), static_cast<unsigned>(row_blocks), 1};
      launch("low_rank_backward", low_rank_kernel<n()>, grid, kThreads, shared_elements(n()) * sizeof(bf16), stream_,
             work);
      const unsigned packs = grid_of(rows * (v.cols / kPack) + gradients, kAddThreads);
      launch("low_rank_backward sums", add_parts_kernel<n()>, packs, kAddThreads, 0, stream_, work, v_rows.as<bf16>(),
             v.pitch, static_cast<int>(v.cols));
    };
    tiles == 1 ? go(std::integral_constant<int, 1>{}) : go(std::integral_constant<int, 2>{});
  }
}

void CudaBackend::do_low_rank_backward(Tensor dy, std::span<const LowRankGradient> terms, Tensor v) {
  LowRankBackward::takes(dy, terms, v) ? (*low_rank_)(dy, terms, v) : Backend::do_low_rank_backward(dy, terms, v);
}

}  // namespace drover::cuda
