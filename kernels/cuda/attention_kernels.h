// Attention's own kernels, forward and backward, over tasks that lie on the device (attention_segments.h): bf16 or f32,
// head_dim up to 256, any segments, offsets and block tables. They are what cuDNN's graphs are checked against, what
// decodes, and what runs where those graphs do not fit.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/attention_plans.h"

namespace drover::cuda {

inline constexpr int kAttentionTile = 64;  // rows of a task
inline constexpr int kMostHeadDim = 256;
inline constexpr int kDecodeKeys = 256;  // of a block where single rows are attended

// A tile of one segment: rows [first, first + kAttentionTile) of its queries or of its keys.
struct AttentionTask {
  int64_t q0 = 0, k0 = 0, offset = 0;  // as in Segment
  int32_t nq = 0, nk = 0;
  int32_t first = 0;
  int32_t table = -1;  // where the segment's block table begins among the tables; -1: it has none
  int32_t part = 0;    // of a single row: the number of the first part that its blocks leave behind
};

struct AttentionTasks {
  const AttentionTask* queries =
      nullptr;  // device memory: first the tiles of segments with several query rows, then those with one
  const AttentionTask* keys = nullptr;  // device memory
  const int32_t* tables = nullptr;      // device memory
  int64_t tiles = 0, single_rows = 0;   // of `queries`
  int64_t decode_blocks = 0;            // of the single row with the most keys
  int64_t decode_parts = 0;             // of all single rows
  int64_t key_tiles = 0;
};

// What the blocks of a single row leave for the last one that ends. `values`: heads·(head_dim + 2) floats a part.
// `ended`: decode_chunks a row, 0 between kernels.
struct DecodeParts {
  float* values = nullptr;
  unsigned* ended = nullptr;
};
int64_t decode_chunks(const AttentionShape& shape);  // groups of heads that a block takes

void attention_tiles(cudaStream_t stream, const AttentionCall& call,
                     const AttentionTasks& tasks);  // segments with several query rows
void attention_decode(cudaStream_t stream, const AttentionCall& call, const AttentionTasks& tasks,
                      const DecodeParts& parts);  // segments with one
void attention_backward(cudaStream_t stream, const AttentionCall& call, const AttentionGradients& gradients,
                        const AttentionTasks& tasks);

}  // namespace drover::cuda
