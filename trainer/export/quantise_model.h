// A model directory with its blocks' linears in fp8 or NF4, out of another one: as transformers and drover load it.
// Embedding, head and norms stay as they are. Tensors stream through: a few pieces of one are in memory at a time.
// Directories are made as dealt_model.h says.
#pragma once
#include <string>
#include <vector>

#include "kernels/comm/communicator.h"
#include "model/files/model_directory.h"

namespace drover {

enum class QuantiseTo : uint8_t { fp8, nf4 };

// ‖W − Ŵ‖ / ‖W‖ over the linears of one kind ("q_proj").
struct KindError {
  std::string kind;
  double mean = 0, largest = 0;
  int64_t layer = 0;  // of the largest
};

struct QuantiseReport {
  int64_t linears = 0;
  int64_t bytes_before = 0, bytes_after = 0;  // of the weight files
  std::vector<KindError> errors;
};

struct QuantiseSettings {
  QuantiseTo to = QuantiseTo::fp8;
  int64_t max_shard_bytes = 5'000'000'000;
  int threads = 1;                // of this process, that make codes
  Communicator* world = nullptr;  // who shares the work; nullptr: this process alone
};

// Collective over settings.world. `out` appears whole or not at all, with config.json and the tokenizer's and
// generation's files of `model`; its bytes and the errors are the same for any number of threads and processes. Weights
// that are quantised otherwise are dequantised, which is said. usage where something is at `out`, where the model is in
// that format already, and, naming the tensor, where NF4's blocks of 64 do not fit its columns; io where the disk has
// not the room; all before anything is written. The report is rank 0's.
QuantiseReport quantise_model(ModelDirectory& model, const fs::path& out, const QuantiseSettings& settings);

}  // namespace drover
