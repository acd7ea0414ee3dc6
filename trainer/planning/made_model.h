// Models without a meaning, for measuring: shapes, numbers that keep every value finite, and batches.
#pragma once
#include "trainer/engine/engine.h"

namespace drover {

struct MadeModel {
  int64_t hidden = 512, ffn = 1536, head_dim = 64, kv_heads = 2, layers = 4, vocab = 16384;
};

struct MadeStep {
  MadeModel model;
  int64_t tokens = 512, document = 512;  // of the micro-batch, and of each of its documents
  int64_t r = 16;
  DType dtype = DType::bf16;
  WeightsAs weights = WeightsAs::dense;
  Products products = Products::widened;
  float dropout = 0;
  int tp = 1;  // a rank's share of so many, whose sums stay its own
};

// Small numbers in no order: what is multiplied takes as long as with real ones.
class MadeWeights : public WeightSource {
 public:
  void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) override;
};

ModelConfig config_of(const MadeModel& model, int64_t positions);
AdapterLayout layout_of(const ModelConfig& config, int64_t r);  // of all linears of the blocks
EngineSettings settings_of(const MadeStep& step, const BackendTraits& traits);
Batch batch_of(const MadeStep& step);

}  // namespace drover
