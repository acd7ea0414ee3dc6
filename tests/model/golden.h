// What Hugging Face's libraries said (tests/golden), and the same models here: drawn weights, PEFT adapter directories,
// whole-sequence logits.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/base/json.h"
#include "kernels/cpu/cpu_backend.h"
#include "model/files/safetensors.h"
#include "model/generation/answers.h"
#include "tests/support/made_up.h"
#include "trainer/engine/plan.h"
#include "trainer/export/export.h"
#include "trainer/setup/adapter_setup.h"

namespace drover::golden {

inline fs::path directory() { return fs::path(DROVER_SOURCE_DIR) / "tests" / "golden"; }
inline Json json(const std::string& name) {
  const fs::path file = directory() / name;
  return parse_json(read_text(file, size_t{1} << 24), file.string());
}

inline std::vector<float> floats_of(const SafetensorsFile& file, const StoredTensor& t) {
  std::vector<float> values(static_cast<size_t>(t.size()));
  require(t.bytes == values.size() * sizeof(float), "golden tensors are fp32");
  file.read(t, 0, t.bytes, values.data());
  return values;
}

class Tensors {
 public:
  explicit Tensors(const std::string& name) : file_(directory() / name) {}
  std::vector<float> at(const std::string& name) const {
    const StoredTensor* t = file_.find(name);
    require(t != nullptr, "the golden file has the tensor");
    return floats_of(file_, *t);
  }

 private:
  SafetensorsFile file_;
};

// "model.layers.0.self_attn.q_proj.lora_A" as PEFT stores it.
// PEFT's name of a factor on disk.
inline std::string stored_name(const std::string& factor) {
  const std::string embedding = std::string(kEmbeddingModule) + ".lora_";
  if (factor.starts_with(embedding))
    return "base_model.model." + std::string(kEmbeddingModule) + ".lora_embedding_" + factor.back();
  return "base_model.model." + factor + ".weight";
}

inline double norm(std::span<const float> x) {
  double sum = 0;
  for (float v : x) sum += static_cast<double>(v) * v;
  return std::sqrt(sum);
}
inline double distance(std::span<const float> x, std::span<const float> y) {  // ‖x - y‖₂
  require(x.size() == y.size(), "compared tensors have one size");
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
  return std::sqrt(sum);
}
inline double largest_difference(std::span<const float> x, std::span<const float> y) {
  require(x.size() == y.size() && !x.empty(), "compared tensors have one size");
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double d = std::abs(static_cast<double>(x[i]) - y[i]);
    if (!std::isfinite(d)) return d;
    worst = std::max(worst, d);
  }
  return worst;
}

// A model of models.json.
struct Model {
  explicit Model(const std::string& name) {
    const Json all = json("models.json");
    for (const Json& m : all.at("models")) {
      if (m.at("name") != name) continue;
      config = parse_model_config(m.at("config").dump(), name);
      seed = m.at("seed");
      linear_std = m.at("weights").at("linear").at("std");
      vocabulary_std = m.at("weights").at("vocabulary").at("std");
      norm_scale = m.at("weights").at("norm").at("scale");
    }
    require(config.hidden > 0, "models.json has the model");
  }
  DrawnWeights weights() const { return {seed, linear_std, vocabulary_std, norm_scale}; }

  ModelConfig config;
  uint64_t seed = 0;
  float linear_std = 0, vocabulary_std = 0, norm_scale = 0;
};

// The drawn weights with some matrices changed: what a wrong model would compute.
class ChangedWeights : public WeightSource {
 public:
  using Change = std::function<void(const ParamSpec&, std::vector<float>& values)>;  // whole matrices, row-major
  ChangedWeights(WeightSource& inner, Change change) : inner_(inner), change_(std::move(change)) {}
  void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) override {
    inner_.read(spec, row, col, to);
    require(to.rows == spec.rows && to.cols == spec.cols && to.dtype == DType::f32,
            "changes are made to whole fp32 matrices");
    std::vector<float> values(to.as<float>(), to.as<float>() + to.size());
    change_(spec, values);
    std::ranges::copy(values, to.as<float>());
  }

 private:
  WeightSource& inner_;
  Change change_;
};

// A model on one rank, for inference: whole sequences at once, or token by token through the cache.
class Runner {
 public:
  static constexpr int64_t kPositions = 256;

  // `adapter`: a PEFT directory; `layout` (when not empty) replaces the layout that its configuration means.
  Runner(const ModelConfig& config, WeightSource& source, DType dtype, const std::optional<fs::path>& adapter = {},
         AdapterLayout layout = {}, WeightsAs weights = WeightsAs::as_is)
      : mesh_(make_self_mesh()),
        backend_(make_cpu_backend(1)),
        weights_("weights", backend_->memory(), 8 << 20),
        factors_("adapter", backend_->memory(), 4 << 20),
        cache_("cache", backend_->memory(), 8 << 20),
        scratch_("scratch", backend_->memory(), 32 << 20) {
    const Placement placement{.layer_end = config.layers};
    if (adapter) {
      if (layout.empty()) layout = adapter_layout_of(config, adapter_config_in(*adapter));
      const std::vector<FactorSlice> factors = factor_slices(config, layout, placement);
      adapter_ = std::make_unique<AdapterSet>(layout, factors, dtype, *backend_, factors_);
    }
    stage_ = std::make_unique<Stage>(StageShape{config, placement, dtype, kPositions, weights},
                                     Loading{mesh_.tp(), *backend_, weights_, source, adapter_.get()});
    if (adapter) load_adapter(*adapter, config, *adapter_);
    pool_ = std::make_unique<KvPool>(*stage_, cache_, 2 * KvPool::blocks_for(kPositions));
    decoder_ = std::make_unique<Decoder>(*stage_, mesh_, *backend_, *pool_, scratch_);
  }

  // (positions, vocab) of one document, without a cache.
  std::vector<float> logits(const std::vector<int32_t>& ids, const std::vector<int32_t>& positions) {
    const int64_t tokens = static_cast<int64_t>(ids.size()), rows = static_cast<int64_t>(positions.size()),
                  vocab = stage_->config().vocab;
    std::vector<int32_t> counted(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) counted[i] = static_cast<int32_t>(i);
    Frame frame(scratch_);
    const auto upload = [&](const std::vector<int32_t>& host) {
      Tensor t = frame.tensor(static_cast<int64_t>(host.size()), 1, DType::i32);
      backend_->upload(host.data(), t);
      return t;
    };
    const Segment segments[] = {{.nq = tokens, .nk = tokens}};
    Context ctx{.backend = *backend_,
                .scratch = scratch_,
                .dtype = stage_->dtype(),
                .rope = stage_->rope(),
                .ids = upload(ids),
                .positions = upload(counted),
                .documents = {},
                .segments = segments,
                .dropout = {},
                .cache = nullptr,
                .cache_rows = {}};
    Tensor x = frame.tensor(tokens, stage_->config().hidden, stage_->dtype());
    stage_->embed(ctx, x);
    run_alone(stage_->forward(ctx, x, {}));
    Tensor all = frame.tensor(rows, stage_->head()->linear.out_features(), DType::f32);
    stage_->head()->logits(ctx, x, upload(positions), all);
    std::vector<float> result(static_cast<size_t>(rows * vocab));
    backend_->download(all.columns(0, vocab), result.data());
    return result;
  }
  Decoder& decoder() { return *decoder_; }
  int64_t vocab() const { return stage_->config().vocab; }

 private:
  Mesh mesh_;
  std::unique_ptr<Backend> backend_;
  Arena weights_, factors_, cache_, scratch_;
  std::unique_ptr<AdapterSet> adapter_;
  std::unique_ptr<Stage> stage_;
  std::unique_ptr<KvPool> pool_;
  std::unique_ptr<Decoder> decoder_;
};

// Sequence 0 is fed token by token, sequence 1 in uneven pieces in the same passes.
inline void expect_cache_equals_full_forward(Runner& runner, const std::vector<int32_t>& tokens, double bound) {
  std::vector<int32_t> every(tokens.size());
  for (size_t i = 0; i < every.size(); ++i) every[i] = static_cast<int32_t>(i);
  const std::vector<float> full = runner.logits(tokens, every);
  const auto row = [&](size_t i) {
    return std::span(full).subspan(i * static_cast<size_t>(runner.vocab()), static_cast<size_t>(runner.vocab()));
  };
  CachedSequence one, other;
  runner.decoder().pool().reserve(one, static_cast<int64_t>(tokens.size()));
  size_t done = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::vector<Decoder::Input> inputs = {{.sequence = &one, .ids = std::span(tokens).subspan(i, 1)}};
    const size_t piece = std::min(1 + i * 7 % 20, tokens.size() - done);
    runner.decoder().pool().reserve(other, static_cast<int64_t>(done + piece));
    if (piece > 0) inputs.push_back({.sequence = &other, .ids = std::span(tokens).subspan(done, piece)});
    const std::vector<std::vector<float>> got = runner.decoder().append_for_logits(inputs);
    done += piece;
    ASSERT_LE(largest_difference(got[0], row(i)), bound) << "token " << i;
    if (piece > 0) {
      ASSERT_LE(largest_difference(got[1], row(done - 1)), bound) << "tokens up to " << done;
    }
  }
  one.tokens = 0;  // a forgotten cache is noticed
  const Decoder::Input last = {.sequence = &one, .ids = std::span(tokens).last(1)};
  const std::vector<float> forgetful = runner.decoder().append_for_logits({&last, 1}).front();
  EXPECT_GT(largest_difference(forgetful, row(tokens.size() - 1)), 100 * bound);
}

}  // namespace drover::golden
