// The engine's gradients against differences of its loss, under dropout and with weighted rows, and what dropout is
// keyed by.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "kernels/count/count.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/made_up.h"
#include "trainer/engine/plan.h"

namespace drover {
namespace {

EngineSettings settings_of(float dropout) {
  EngineSettings s;
  s.model.hidden = 48, s.model.layers = 3, s.model.heads = 4, s.model.kv_heads = 2, s.model.head_dim = 12,
  s.model.ffn = 80, s.model.vocab = 101, s.model.max_positions = 128;
  s.adapter = adapter_layout(s.model, [](const std::string&) { return LowRankSpec{3, 1.5f}; });
  s.partition = {{0, s.model.layers}};
  s.max_positions = 64;
  s.capacity.micro_batch = {80, 80};
  s.capacity.local_micro_batches = 2;
  s.dropout = dropout;
  return s;
}

Batch batch_of(const std::vector<std::vector<int64_t>>& micro_batches) {
  Batch batch;
  int document = 0;
  for (const auto& lengths : micro_batches) {
    batch.micro_batches.push_back(made_up_micro_batch(3, lengths, document, 101, batch.total++));
    document += static_cast<int>(lengths.size());
    for (float w : batch.micro_batches.back().weights) batch.weight_sum += w;
  }
  return batch;
}

// An engine whose adapter's parameters a test moves.
class Moved {
 public:
  explicit Moved(float dropout) : settings_(settings_of(dropout)) {
    for (int64_t i = 0; i < size(); ++i) start_.push_back(drawn(5, "adapter", i, 0, 0.6f));
    move({}, 0);
  }
  int64_t size() { return replica_.trainables->size(); }
  Engine& engine() { return engine_; }
  const AdapterSet& adapter() const { return *replica_.adapter; }
  // parameters := start + h·direction
  void move(const std::vector<double>& direction, double h) {
    replica_.adapter->load([&](const FactorSlice& f, float* values) {
      for (int64_t i = 0; i < f.size(); ++i) {
        const size_t at = static_cast<size_t>(f.offset + i);
        values[i] = static_cast<float>(start_[at] + (direction.empty() ? 0 : h * direction[at]));
      }
    });
  }
  std::vector<double> gradient(const Batch& batch, int64_t step, double* loss = nullptr) {
    const double value = engine_.accumulate_gradients(batch, step);
    if (loss != nullptr) *loss = value;
    const float* g = replica_.adapter->gradients.as<float>();
    return {g, g + size()};
  }

 private:
  EngineSettings settings_;
  ArenaBytes bytes_ = plan_rank(settings_, {}, {}).bytes;
  DrawnWeights weights_{11, 0.15f, 0.5f};
  Replica replica_{settings_, Device{make_cpu_backend(1), make_self_mesh()}, weights_, bytes_};
  Engine engine_{settings_, replica_, bytes_.saved};
  std::vector<float> start_;
};

double squares(const std::vector<double>& x) {
  double s = 0;
  for (double v : x) s += v * v;
  return s;
}

// For each factor of each projection, over all layers: the slope of the loss along the gradient is the gradient's
// square.
TEST(Engine, GradientsAreTheSlopesOfTheLossUnderDropout) {
  const Batch batch = batch_of({{23, 9}, {31}});
  for (const float dropout : {0.0f, 0.1f}) {
    Moved moved(dropout);
    const std::vector<double> gradient = moved.gradient(batch, 1), other_masks = moved.gradient(batch, 2);
    for (Projection p : kAllProjections) {
      for (const auto& [factor, suffix] : kFactors) {
        std::vector<double> part(gradient.size());
        double by_other_masks = 0;
        for (const FactorSlice& f : moved.adapter().factors()) {
          if (f.projection != p || f.factor != factor) continue;
          for (size_t i = static_cast<size_t>(f.offset); i < static_cast<size_t>(f.offset + f.size()); ++i) {
            part[i] = gradient[i];
            by_other_masks += gradient[i] * other_masks[i];
          }
        }
        const double expected = squares(part), h = 4e-3 / expected;
        ASSERT_GT(expected, 0);
        double up = 0, down = 0;
        moved.move(part, h);
        moved.gradient(batch, 1, &up);
        moved.move(part, -h);
        moved.gradient(batch, 1, &down);
        moved.move({}, 0);
        SCOPED_TRACE(fmt::format("dropout {} projection {} {}", dropout, static_cast<int>(p), suffix));
        EXPECT_NEAR((up - down) / (2 * h) / expected, 1, 2e-3);
        if (dropout == 0) continue;
        EXPECT_GT(std::abs(by_other_masks / expected - 1), 4e-3);  // gradients under other masks would be noticed
      }
    }
  }
}

TEST(Engine, RowsCountByTheirWeights) {
  const Batch one = batch_of({{23}, {31}});
  Batch weighted = one;
  weighted.weight_sum = 0;
  for (size_t i = 0; i < 2; ++i) {
    for (float& w : weighted.micro_batches[i].weights) weighted.weight_sum += w *= i == 0 ? 2.5f : 1.0f;
  }
  Moved moved(0);
  std::vector<double> expected(static_cast<size_t>(moved.size()));
  double expected_loss = 0;
  for (size_t i = 0; i < 2; ++i) {
    Batch alone;
    alone.total = 1;
    alone.micro_batches = {one.micro_batches[i]};
    alone.micro_batches[0].index = 0;
    for (float w : alone.micro_batches[0].weights) alone.weight_sum += w;
    double loss = 0;
    const std::vector<double> gradient = moved.gradient(alone, 1, &loss);
    const double share = (i == 0 ? 2.5 : 1.0) * alone.weight_sum / weighted.weight_sum;
    for (size_t j = 0; j < gradient.size(); ++j) expected[j] += share * gradient[j];
    expected_loss += share * loss;
  }
  double loss = 0;
  std::vector<double> difference = moved.gradient(weighted, 1, &loss);
  for (size_t j = 0; j < difference.size(); ++j) difference[j] -= expected[j];
  EXPECT_NEAR(loss, expected_loss, 1e-6 * expected_loss);
  EXPECT_LE(std::sqrt(squares(difference)), 1e-5 * std::sqrt(squares(expected)));
  EXPECT_GT(std::abs(moved.engine().accumulate_gradients(one, 1) - loss), 1e-3);
}

// What keys the dropout masks of a training step, read off the counting backend.
class KeyRecorder : public CountBackend {
 public:
  std::set<uint64_t> keys;

 private:
  void do_dropout(Tensor, const DropoutMask& mask, Tensor) override { keys.insert(mask.key); }
};

std::set<uint64_t> keys_of(uint64_t seed, int64_t step, const MeshShape& shape, int stage) {
  EngineSettings s = settings_of(0.1f);
  s.seed = seed;
  s.partition = partition_layers(s.model.layers, shape.pp(), 0.5);
  const auto backend = std::make_shared<KeyRecorder>();
  NoWeights nothing;
  Replica replica(s, {backend, make_count_mesh(shape, {{Axis::pp, stage}})}, nothing, kPlenty);
  Engine engine(s, replica, kPlenty.saved);
  engine.train_step(worst_batch(40, 40, 40, 1, 1), step);
  return backend->keys;
}

TEST(Engine, DropoutIsKeyedBySeedStepLayerAndModule) {
  const std::set<uint64_t> keys = keys_of(42, 3, {}, 0);
  EXPECT_EQ(keys.size(), 3u * kProjections + 1);  // and the head
  for (const std::set<uint64_t>& other : {keys_of(43, 3, {}, 0), keys_of(42, 4, {}, 0)}) {
    EXPECT_EQ(other.size(), keys.size());
    for (uint64_t key : other) EXPECT_EQ(keys.count(key), 0u);
  }
  std::set<uint64_t> of_stages;  // layers count through the whole model
  for (int stage = 0; stage < 3; ++stage) of_stages.merge(keys_of(42, 3, {{Axis::pp, 3}}, stage));
  EXPECT_EQ(of_stages, keys);
}

}  // namespace
}  // namespace drover
