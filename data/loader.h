// From a token store to batches. The order of rows, the micro-batches and what is in them are global; a rank takes its
// consecutive share of them.
#pragma once
#include "data/batch.h"
#include "data/token_store.h"

namespace drover {

// Where a run stands in its data: two integers.
struct StreamPosition {
  int64_t epoch = 0, step = 0;
  bool operator==(const StreamPosition&) const = default;
};

struct LoaderSettings {
  int64_t micro_batch_size = 1, global_batch_size = 16;  // rows
  bool shuffle = true;
  uint64_t seed = 42;
  int dp_rank = 0, dp_size = 1;
};

// The rows of an epoch in the store's order: of every source as often as it repeats, and for the fraction that remains
// those with the smallest draws of (seed, epoch), one at least. The same number in every epoch.
std::vector<int64_t> rows_in_epoch(const TokenStore& store, uint64_t seed, int64_t epoch);

// Batches depend on the position alone; the order of the epoch last asked for is kept, so threads do not share a
// loader.
class Loader {
 public:
  Loader(const TokenStore& store, const LoaderSettings& settings);

  int64_t steps_per_epoch() const;
  StreamPosition position_of(int64_t step) const {
    return {step / steps_per_epoch(), step % steps_per_epoch()};
  }  // step from 0
  // The rows of a step, in order; the last step of an epoch may have fewer than global_batch_size.
  std::vector<int64_t> rows_of(StreamPosition position) const;
  // The most tokens, and the most trained tokens, of any micro-batch of the first `steps` steps: what a run of that
  // length will hold.
  MicroBatchSize largest_micro_batch(int64_t steps) const;
  Batch load(StreamPosition position) const;  // bad_data naming the rows when no token of the global batch is trained

 private:
  const std::vector<int64_t>& order_of(int64_t epoch) const;

  const TokenStore& store_;
  LoaderSettings settings_;
  int64_t rows_;  // of an epoch
  mutable int64_t ordered_epoch_ = -1;
  mutable std::vector<int64_t> order_;
};

// A permutation of 0…n-1 from (seed, epoch) alone: rows in the order of their counter-based draws.
std::vector<int64_t> permutation(int64_t n, uint64_t seed, int64_t epoch);

MicroBatch micro_batch_of(const TokenStore& store, std::span<const int64_t> rows, int64_t index);
// A batch of the given rows in order; this rank's consecutive share of its micro-batches.
Batch batch_of_rows(const TokenStore& store, std::span<const int64_t> rows, int64_t micro_batch_size, int dp_rank,
                    int dp_size);

}  // namespace drover
