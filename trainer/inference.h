// A model ready to answer: weights, perhaps an adapter, a key/value pool. Under tensor and pipeline parallelism every
// rank of the world holds a share, and all ranks make the same calls.
#pragma once
#include <memory>
#include <optional>

#include "kernels/comm/device.h"
#include "model/files/model_directory.h"
#include "model/files/peft.h"
#include "model/generation/batcher.h"
#include "trainer/setup.h"

namespace drover {

struct InferenceSettings {
  fs::path model;
  std::optional<fs::path> adapter;  // PEFT
  DType dtype = DType::bf16;
  BatcherSettings batcher;
  int64_t capacity_tokens = 0;      // prompt and answer; 0: as much as the model's positions allow, at most 4096
};

class Inference {
 public:
  Inference(const InferenceSettings& settings, const Mesh& mesh, const OpenDevice& open_device);

  Batcher& batcher() { return *batcher_; }
  Decoder& decoder() { return *decoder_; }

 private:
  std::optional<ModelDirectory> directory_;
  std::optional<Device> device_;
  std::vector<std::unique_ptr<Arena>> arenas_;
  std::unique_ptr<AdapterSet> adapter_;
  std::unique_ptr<Stage> stage_;
  std::unique_ptr<KvPool> pool_;
  std::unique_ptr<Decoder> decoder_;
  std::optional<Batcher> batcher_;
};

}  // namespace drover
