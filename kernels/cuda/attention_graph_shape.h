// Which of cuDNN's attention graphs a call takes, as plain functions. A graph is built for a shape and serves every
// call that fits into it: the numbers of documents and of rows are rounded up to buckets, so that a run builds few
// graphs, and documents of length 0 fill a bucket. There are four kinds: packed causal documents, forward and
// backward; the forward of documents of one length, which needs no tables and is a few percent faster, for lengths that
// come again and again (cuDNN 9.14 refuses such a backward unless lse lies by heads); decoding, where each sequence has
// one query row over the keys of its cache; and chunks of prompts, the last rows of sequences whose keys lie in blocks.
#pragma once
#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/cuda/attention_plans.h"

namespace drover::cuda {

struct GraphShape {
  enum Member { kQ, kK, kV, kO, kLse, kDO, kDQ, kDK, kDV, kMembers };  // from kDO on: backward only

  bool backward = false, deterministic = false;
  bool decode = false;
  bool paged = false;
  bool equal = false;     // documents of one length: their numbers are not buckets, and there are no tables
  int64_t documents = 0;  // bucket; of decoding: sequences
  int64_t longest = 0;    // bucket: the longest document's rows; of decoding: keys
  int64_t rows = 0;       // an upper bound of all documents' rows, where the workspace is laid out by it (backward); of
                          // decoding: from one sequence's keys to the next's; else 0
  int64_t keys = 0, blocks = 0, block_size = 0;  // of chunks: a bucket of keys; the cache's blocks and their rows
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 1;
  std::array<int64_t, kMembers> pitch{};  // elements from one row to the next; 0 for what a forward graph has not
  auto operator<=>(const GraphShape&) const = default;
};

// Whether the graphs can do what is asked for: bf16, no block table, every document causal over its own rows (q0 == k0,
// nq == nk, offset 0) and following the one before without a gap, head_dim % 8 == 0 and <= 128, rows and the first lse
// on 16-byte boundaries. `gradients` is null for a forward.
bool packed_causal(const AttentionCall& call, const AttentionGradients* gradients);

int64_t document_bucket(int64_t documents);  // 1, 2, 4, 8, …
int64_t row_bucket(
    int64_t rows);  // 64, 128, 192, 256, 320, …: quarters of an octave, multiples of 64; a power of two is one

// The graph of a call that packed_causal() accepts. `rows_seen`: where the last document of any call so far has ended,
// rounded up; it bounds the workspace's rows.
GraphShape graph_shape(const AttentionCall& call, const AttentionGradients* gradients, bool deterministic,
                       int64_t rows_seen);

// The graph of a forward that packed_causal() accepts and whose documents are equally long.
std::optional<GraphShape> equal_shape(const AttentionCall& call);

// The graph of a call that decodes: bf16, one query row a sequence that sees all its keys, no block table, the caches
// one behind another at one distance, and at least kLeastDecodedKeys keys in the longest. For fewer, own kernels are as
// fast.
inline constexpr int64_t kLeastDecodedKeys = 1024;
std::optional<GraphShape> decode_shape(const AttentionCall& call);

// The graph of chunks: bf16, more than one query row a sequence, the last of its keys, which lie in blocks; each
// chunk's rows follow those of the chunk before.
std::optional<GraphShape> paged_shape(const AttentionCall& call);

// The different pitches of a shape: a ragged tensor gets its documents' beginnings in elements, so each pitch has
// its own table.
std::vector<int64_t> offset_pitches(const GraphShape& shape);
// int32 lengths[documents], then per pitch int64 begins[documents + 1], each part padded to 16 bytes. The byte offsets
// are those of `document_tables_at`. Of decoding: int32 lengths[documents] of the queries (1), then of the keys, each
// part padded likewise. Of equal lengths: nothing. Of chunks: as of documents, then int32 lengths[documents] of the
// keys, padded likewise, and int32 blocks[documents][keys / block_size].
std::vector<char> document_tables(const AttentionCall& call, const GraphShape& shape);
int64_t document_tables_at(const GraphShape& shape, int64_t pitch_index);  // -1: behind them
int64_t blocks_at(const GraphShape& shape);                                // of chunks

}  // namespace drover::cuda
