// A model ready to answer: weights, perhaps an adapter, a key/value pool. Under tensor and pipeline parallelism every
// rank of the world holds a share, and all ranks make the same calls.
#pragma once
#include <memory>
#include <optional>

#include "model/adapter_pool.h"
#include "model/generation/batcher.h"
#include "trainer/engine/replica.h"

namespace drover {

struct InferenceSettings {
  fs::path model;
  std::optional<fs::path> adapter;            // PEFT
  std::vector<fs::path> named_adapters = {};  // PEFT; requests choose among them by slot
  DType dtype = DType::bf16;
  BatcherSettings batcher;
  int64_t capacity_tokens = 0;  // prompt and answer; 0: as much as the model's positions allow, at most 4096
};

class Inference {
 public:
  Inference(const InferenceSettings& settings, const Mesh& mesh, const OpenDevice& open_device);

  // Of the model as the adapter changes it.
  const ModelConfig& config() const { return base_->config(); }
  int slot_of(size_t named_adapter) const { return slots_[named_adapter]; }
  Batcher& batcher() { return *batcher_; }
  Decoder& decoder() { return *decoder_; }

 private:
  std::optional<ModelDirectory> directory_;
  std::optional<BaseWeights> base_;
  std::unique_ptr<Replica> replica_;
  std::optional<AdapterPool> adapters_;
  std::vector<int> slots_;
  std::optional<KvPool> pool_;
  std::optional<Decoder> decoder_;
  std::optional<Batcher> batcher_;
};

}  // namespace drover
