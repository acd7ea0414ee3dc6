// A whole model ready to answer: weights, perhaps an adapter, a key/value cache. Under tensor parallelism every rank of the world holds a share
// and all ranks make the same calls.
#pragma once
#include <memory>
#include <optional>

#include "trainer/answering.h"
#include "trainer/replica.h"

namespace drover {

struct InferenceSettings {
  fs::path model;
  std::optional<fs::path> adapter;  // PEFT
  std::vector<int32_t> stop_ids;
  DType dtype = DType::bf16;
  int64_t sequences = 8;            // answered at once
  int64_t capacity_tokens = 0;      // prompt and answer; 0: as much as the model's positions allow, at most 4096
};

class Inference {
 public:
  Inference(const InferenceSettings& settings, const Mesh& mesh, const OpenDevice& open_device);

  Answering& answering() { return *answering_; }
  Decoder& decoder() { return *decoder_; }

 private:
  std::optional<ModelDirectory> directory_;
  std::unique_ptr<Replica> replica_;
  std::optional<Decoder> decoder_;
  std::optional<Answering> answering_;
};

}  // namespace drover
