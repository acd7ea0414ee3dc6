// Made-up models and batches for tests: weights drawn element by element from (seed, name), as tests/golden/philox.py
// draws them.
#pragma once
#include <cmath>
#include <vector>

#include "data/batch.h"
#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/philox.h"
#include "model/stage.h"

namespace drover {

inline float drawn(uint64_t seed, const std::string& name, int64_t index, float offset, float scale) {
  const PhiloxKey key = PhiloxKey::of(sha256_prefix(fmt::format("{}:{}", seed, name)));
  const float product = (philox_uniform(key, static_cast<uint64_t>(index)) - 0.5f) * scale;
  return offset + product;
}

// Every weight from a formula, rounded to bf16 first (as a checkpoint stores it).
class DrawnWeights : public WeightSource {
 public:
  DrawnWeights(uint64_t seed, float linear_std, float embedding_std, float norm_scale = 0.8f)
      : seed_(seed),
        linear_scale_(linear_std * std::sqrt(12.0f)),
        embedding_scale_(embedding_std * std::sqrt(12.0f)),
        norm_scale_(norm_scale) {}

  void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) override {
    const bool norm = spec.cols == 1, vocabulary = spec.split == Split::vocabulary;
    const float offset = norm ? 1.0f : 0.0f, scale = norm ? norm_scale_ : vocabulary ? embedding_scale_ : linear_scale_;
    const PhiloxKey key = PhiloxKey::of(sha256_prefix(fmt::format("{}:{}", seed_, spec.name)));
    for (int64_t r = 0; r < to.rows; ++r) {
      for (int64_t c = 0; c < to.cols; ++c) {
        const int64_t index = (row + r) * spec.cols + col + c;
        const float product = (philox_uniform(key, static_cast<uint64_t>(index)) - 0.5f) * scale;
        const int64_t at = r * to.pitch + c;
        const bf16 value(offset + product);
        if (to.dtype == DType::f32) to.as<float>()[at] = static_cast<float>(value);
        if (to.dtype == DType::bf16) to.as<bf16>()[at] = value;
      }
    }
  }

 private:
  uint64_t seed_;
  float linear_scale_, embedding_scale_, norm_scale_;
};

// Those of which every linear's rows and columns have a size each, and so every block, also where its scale is a power
// of two: with one size for all, blocks of many weights have the same scale.
class VariedWeights : public DrawnWeights {
 public:
  using DrawnWeights::DrawnWeights;
  void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) override {
    DrawnWeights::read(spec, row, col, to);
    if (spec.split != Split::output && spec.split != Split::input) return;
    const auto size = [](int64_t i) {
      return (0.5f + static_cast<float>(i * 37 % 101) / 101) * (i / 64 % 2 == 0 ? 1.0f : 0.2f);
    };
    for (int64_t r = 0; r < to.rows; ++r) {
      for (int64_t c = 0; c < to.cols; ++c) {
        const float factor = size(row + r) * size(col + c);
        const int64_t at = r * to.pitch + c;
        if (to.dtype == DType::f32) to.as<float>()[at] *= factor;
        if (to.dtype == DType::bf16) to.as<bf16>()[at] = bf16(static_cast<float>(to.as<bf16>()[at]) * factor);
      }
    }
  }
};

// A micro-batch of documents laid end to end; token ids and the mask of trained tokens are drawn from (seed, document).
inline MicroBatch made_up_micro_batch(uint64_t seed, std::span<const int64_t> lengths, int first_document,
                                      int64_t vocab, int64_t index, float trained_share = 0.6f) {
  MicroBatch m;
  m.index = index;
  for (size_t d = 0; d < lengths.size(); ++d) {
    const int document = first_document + static_cast<int>(d);
    const std::string name = fmt::format("document {}", document);
    const int64_t begin = static_cast<int64_t>(m.tokens.size());
    m.spans.push_back({begin, lengths[d]});
    for (int64_t i = 0; i < lengths[d]; ++i) {
      m.tokens.push_back(static_cast<int32_t>(drawn(seed, name, i, 0.5f, 1.0f) * static_cast<float>(vocab)));
      m.positions.push_back(static_cast<int32_t>(i));
      m.documents.push_back(document);
    }
    for (int64_t i = 0; i < lengths[d]; ++i) {
      const bool trained = i + 1 < lengths[d] && drawn(seed, name + " mask", i, 0.5f, 1.0f) < trained_share;
      m.labels.push_back(trained ? m.tokens[static_cast<size_t>(begin + i + 1)] : -1);
      m.weights.push_back(trained ? 1.0f : 0.0f);
    }
  }
  return m;
}

}  // namespace drover
