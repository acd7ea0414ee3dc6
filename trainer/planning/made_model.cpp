#include "trainer/planning/made_model.h"

#include "trainer/engine/plan.h"

namespace drover {

void MadeWeights::read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) {
  uint32_t state = static_cast<uint32_t>(row * 2654435761u + col * 40503u + 1);
  const float scale = spec.cols == 1 ? 0.0f : 0.08f, offset = spec.cols == 1 ? 1.0f : 0.0f;
  for (int64_t r = 0; r < to.rows; ++r) {
    for (int64_t c = 0; c < to.cols; ++c) {
      state = state * 1664525u + 1013904223u;
      const float value = offset + scale * (static_cast<float>(state >> 8) * 0x1p-24f - 0.5f);
      if (to.dtype == DType::f32) to.as<float>()[r * to.pitch + c] = value;
      if (to.dtype == DType::bf16) to.as<bf16>()[r * to.pitch + c] = bf16(value);
    }
  }
}

ModelConfig config_of(const MadeModel& m, int64_t positions) {
  ModelConfig config;
  config.hidden = m.hidden, config.ffn = m.ffn, config.layers = m.layers, config.vocab = m.vocab;
  config.heads = m.hidden / m.head_dim, config.kv_heads = m.kv_heads, config.head_dim = m.head_dim;
  config.max_positions = positions;
  return config;
}

AdapterLayout layout_of(const ModelConfig& config, int64_t r) {
  return adapter_layout(config, [&](const std::string& path) {
    return path == "lm_head" ? std::nullopt : std::optional(LowRankSpec{.r = r});
  });
}

EngineSettings settings_of(const MadeStep& step, const BackendTraits& traits) {
  EngineSettings s;
  s.model = config_of(step.model, step.document);
  s.adapter = layout_of(s.model, step.r);
  s.partition = {{0, step.model.layers}};
  s.dtype = step.dtype;
  s.weights = step.weights;
  s.products = step.products;
  s.max_positions = step.document;
  s.capacity.micro_batch = {.tokens = step.tokens, .trained_tokens = step.tokens};
  s.traits = traits;
  s.optimizer.learning_rate = {.shape = LearningRateShape::constant, .peak = 1e-6, .total_steps = 100};
  s.dropout = step.dropout;
  return s;
}

Batch batch_of(const MadeStep& step) {
  Batch batch = worst_batch(step.tokens, step.tokens, step.document, 1, 1);
  MicroBatch& m = batch.micro_batches.front();
  for (size_t t = 0; t < m.tokens.size(); ++t) {
    m.tokens[t] = static_cast<int32_t>((t * 7919 + 13) % static_cast<size_t>(step.model.vocab));
    m.labels[t] = static_cast<int32_t>((t * 104729 + 7) % static_cast<size_t>(step.model.vocab));
    m.positions[t] = static_cast<int32_t>(t) % static_cast<int32_t>(step.document);
    m.documents[t] = static_cast<int32_t>(t) / static_cast<int32_t>(step.document);
  }
  return batch;
}

}  // namespace drover
