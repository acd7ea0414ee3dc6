// A model ready to answer: weights, perhaps an adapter, a key/value pool. Under tensor and pipeline parallelism every
// rank of the world holds a share, and all ranks make the same calls.
#pragma once
#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>

#include "model/adapter_pool.h"
#include "model/generation/batcher.h"
#include "trainer/engine/replica.h"
#include "trainer/generation/loaded_adapter.h"

namespace drover {

// How much memory keys and values get; both at 0: as much as all sequences need at their longest. They never get more.
struct CacheMemory {
  int64_t bytes = 0;  // of each rank
  double share = 0;   // of what is free when all else has its memory
};

struct InferenceSettings {
  fs::path model;
  std::optional<fs::path> adapter;            // PEFT
  std::vector<fs::path> named_adapters = {};  // PEFT; requests choose among them by slot
  int64_t later_rank = 0;                     // adapters of up to this rank, on any linear, may be attached later
  DType dtype = DType::bf16;
  WeightsAs weights = WeightsAs::as_is;
  bool streamed = false;  // memory.weights: host
  BatcherSettings batcher;
  int64_t capacity_tokens = 0;  // prompt and answer; 0: as much as the model's positions allow, at most 4096
  CacheMemory cache;
};

class Inference {
 public:
  Inference(const InferenceSettings& settings, const Mesh& mesh, const OpenDevice& open_device);

  // Of the model as the adapter changes it.
  const ModelConfig& config() const { return base_->config(); }
  int slot_of(size_t named_adapter) const { return slots_[named_adapter]; }
  // Tokens that prompt and answer may have together.
  int64_t longest() const { return std::min(replica_->stage.max_positions(), pool_->tokens()); }
  const KvPool& pool() const { return *pool_; }
  int64_t cache_bytes() const { return replica_->arenas.cache.capacity_bytes(); }
  Batcher& batcher() { return *batcher_; }
  Decoder& decoder() { return *decoder_; }

  // What `attach` wants, from a PEFT directory; any thread. bad_data where the adapter does not fit the base, or has a
  // larger rank than was planned for; missing_input and io as the file's readers.
  LoadedAdapter read_adapter(const fs::path& directory);
  // Between two passes, on all ranks: the adapter's slot. One that is attached already is the same slot.
  int attach(const LoadedAdapter& adapter);
  void detach(int slot);  // once for each `attach`

 private:
  AdapterLayout layout_of(const fs::path& directory);

  InferenceSettings settings_;
  std::optional<ModelDirectory> directory_;
  std::mutex reading_;  // of directory_
  std::optional<BaseWeights> base_;
  std::unique_ptr<Replica> replica_;
  std::optional<AdapterPool> adapters_;
  std::vector<int> slots_;
  std::optional<KvPool> pool_;
  std::optional<Decoder> decoder_;
  std::optional<Batcher> batcher_;
};

}  // namespace drover
