// The engine over frozen weights that are codes: gradients are slopes of the loss, a checkpoint continues to the same
// bits, and the plan is what is allocated.
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "kernels/comm/threads.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/files/quantised_files.h"
#include "tests/support/made_up.h"
#include "trainer/engine/plan.h"
#include "trainer/run/checkpoint.h"

namespace drover {
namespace {

// tp 2 cuts its columns inside blocks of 128 and between blocks of 64.
EngineSettings settings_of(WeightsAs weights) {
  EngineSettings s;
  s.model.hidden = 128, s.model.layers = 2, s.model.heads = 4, s.model.kv_heads = 2, s.model.head_dim = 32,
  s.model.ffn = 384, s.model.vocab = 101, s.model.max_positions = 128;
  s.adapter = adapter_layout(s.model, [](const std::string&) { return LowRankSpec{3, 1.5f}; });
  s.partition = {{0, s.model.layers}};
  s.weights = weights;
  s.max_positions = 64;
  s.capacity.micro_batch = {80, 80};
  s.capacity.local_micro_batches = 2;
  s.optimizer = {.learning_rate = {LearningRateShape::constant, 5e-3}, .weight_decay = 0.01, .max_grad_norm = 1};
  return s;
}

Batch batch_of(int64_t step) {
  Batch batch;
  for (const auto& lengths : {std::vector<int64_t>{23, 9}, {31}}) {
    batch.micro_batches.push_back(
        made_up_micro_batch(3, lengths, static_cast<int>(10 * step + 2 * batch.total), 101, batch.total));
    ++batch.total;
    for (float w : batch.micro_batches.back().weights) batch.weight_sum += w;
  }
  return batch;
}

class Trained {
 public:
  explicit Trained(WeightsAs weights) : settings_(settings_of(weights)) { move({}, 0); }
  Replica& replica() { return replica_; }
  Engine& engine() { return engine_; }
  const ArenaBytes& planned() const { return bytes_; }
  std::span<const float> parameters() const { return values(replica_.adapter->parameters); }
  std::span<const float> gradients() const { return values(replica_.adapter->gradients); }
  // parameters := drawn ones + h · direction
  void move(const std::vector<float>& direction, double h) {
    replica_.adapter->load([&](const FactorSlice& f, float* to) {
      for (int64_t i = 0; i < f.size(); ++i) {
        const double step = direction.empty() ? 0 : h * direction[static_cast<size_t>(f.offset + i)];
        to[i] = static_cast<float>(drawn(5, f.name, i, 0, 0.4f) + step);
      }
    });
  }

 private:
  static std::span<const float> values(Tensor t) { return {t.as<float>(), static_cast<size_t>(t.size())}; }
  EngineSettings settings_;
  ArenaBytes bytes_ = plan_rank(settings_, {}, {}).bytes;
  VariedWeights weights_{11, 0.1f, 0.5f};
  Replica replica_{settings_, Device{make_cpu_backend(1), make_self_mesh()}, weights_, bytes_};
  Engine engine_{settings_, replica_, bytes_.saved};
};

std::string name_of(WeightsAs weights) {
  switch (weights) {
    case WeightsAs::as_is: return "as_is";
    case WeightsAs::dense: return "dense";
    case WeightsAs::fp8: return "fp8";
    case WeightsAs::nf4: return "nf4";
  }
  return "";
}

class QuantisedEngine : public testing::TestWithParam<WeightsAs> {};

TEST_P(QuantisedEngine, GradientsAreTheSlopesOfTheLoss) {
  Trained trained(GetParam());
  const Batch batch = batch_of(0);
  trained.engine().accumulate_gradients(batch, 1);
  const std::vector<float> gradient(trained.gradients().begin(), trained.gradients().end());
  double expected = 0;
  for (const float g : gradient) expected += static_cast<double>(g) * g;
  ASSERT_GT(expected, 0);
  const double h = 4e-3 / expected;
  trained.move(gradient, h);
  const double up = trained.engine().accumulate_gradients(batch, 1);
  trained.move(gradient, -h);
  const double down = trained.engine().accumulate_gradients(batch, 1);
  EXPECT_NEAR((up - down) / (2 * h) / expected, 1, 2e-3);
}

TEST_P(QuantisedEngine, ACheckpointContinuesToTheSameBits) {
  ScratchDirectory dir;
  Trained straight(GetParam()), first(GetParam()), second(GetParam());
  for (int64_t step = 1; step <= 4; ++step) straight.engine().train_step(batch_of(step), step);
  for (int64_t step = 1; step <= 2; ++step) first.engine().train_step(batch_of(step), step);
  const Mesh& mesh = first.replica().device.mesh;
  save_checkpoint(dir.path(), {.step = 2, .identity = {{"model", "x"}}}, *first.replica().trainables,
                  first.replica().backend(), mesh);
  second.replica().load(Checkpoint::open(dir / "step-2"));
  for (int64_t step = 3; step <= 4; ++step) second.engine().train_step(batch_of(step), step);
  EXPECT_TRUE(std::ranges::equal(second.parameters(), straight.parameters()));
  EXPECT_FALSE(std::ranges::equal(first.parameters(), straight.parameters()));
}

TEST_P(QuantisedEngine, HoldsWhatIsPlanned) {
  Trained trained(GetParam());
  trained.engine().train_step(batch_of(0), 1);
  const ArenaBytes peak = trained.engine().peak();
  EXPECT_EQ(peak.weights, trained.planned().weights);
  EXPECT_EQ(peak.adapter, trained.planned().adapter);
  EXPECT_EQ(peak.optimizer, trained.planned().optimizer);
  EXPECT_LE(peak.scratch, trained.planned().scratch);
  EXPECT_LT(trained.planned().weights, Trained(WeightsAs::dense).planned().weights * 2 / 3);
}

INSTANTIATE_TEST_SUITE_P(Formats, QuantisedEngine, testing::Values(WeightsAs::fp8, WeightsAs::nf4),
                         [](const auto& info) { return name_of(info.param); });

class QuantisedPlan : public testing::TestWithParam<std::string> {};

// Of every layout, as it is and as all that it may become.
TEST_P(QuantisedPlan, IsWhatIsAllocated) {
  ModelDirectory model(golden_directory(GetParam()));
  BaseWeights weights(model);
  for (const WeightsAs as : {WeightsAs::as_is, WeightsAs::dense, WeightsAs::fp8, WeightsAs::nf4}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      EngineSettings s = settings_of(as);
      s.model = weights.config();
      s.adapter = {};
      s.train = false;
      s.partition = {{0, s.model.layers}};
      s.dtype = dtype;
      s.stored = [&](const ParamSpec& spec) { return weights.scaling(spec); };
      const ArenaBytes bytes = plan_rank(s, {}, {}).bytes;
      const Replica replica(s, Device{make_cpu_backend(1), make_self_mesh()}, weights, bytes);
      EXPECT_EQ(replica.peak().weights, bytes.weights) << name_of(as);
      s.weights = WeightsAs::dense;
      EXPECT_EQ(plan_rank(s, {}, {}).bytes.weights > bytes.weights, as != WeightsAs::dense) << name_of(as);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, QuantisedPlan, testing::ValuesIn(kLayouts), [](const auto& info) {
  std::string name = info.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

// A cut inside a block of 128 leaves both ranks its scale: they do not hold as much.
TEST(PlanOfQuantised, IsThatOfEveryRankOfTensorParallelism) {
  EngineSettings s = settings_of(WeightsAs::fp8);
  s.model.hidden = 8192, s.model.ffn = 192, s.model.layers = 1;
  s.partition = {{0, 1}};
  s.adapter = empty_layout(s.model);
  s.train = false;
  const MeshShape shape{{Axis::tp, 2}, {Axis::dp, 2}};
  const std::vector<RankPlan> plans = plan_mesh(s, shape);
  ASSERT_EQ(plans.size(), 4u);
  for (const RankPlan& plan : plans) EXPECT_EQ(plan.bytes, plan_rank(s, shape, plan.position).bytes) << plan.rank;
  EXPECT_NE(plans[0].bytes.weights, plans[1].bytes.weights);
}

TEST(PlanOfQuantised, IsThatOfWhatThreadsHold) {
  for (const WeightsAs as : {WeightsAs::fp8, WeightsAs::nf4}) {
    EngineSettings s = settings_of(as);
    const MeshShape shape{{Axis::tp, 2}};
    const std::vector<RankPlan> plans = plan_mesh(s, shape);
    VariedWeights weights(11, 0.1f, 0.5f);
    std::mutex mutex;
    int ranks = 0;
    run_on_threads(shape, [&](Mesh& mesh) {
      const ArenaBytes& planned = plans[static_cast<size_t>(mesh.world->rank())].bytes;
      Replica replica(s, Device{make_cpu_backend(1), mesh}, weights, planned);
      const std::lock_guard lock(mutex);
      EXPECT_EQ(replica.peak().weights, planned.weights) << name_of(as);
      ++ranks;
    });
    EXPECT_EQ(ranks, 2);
  }
}

TEST(PlanOfQuantised, RefusesWhatNF4CannotBeCutInto) {
  EngineSettings s = settings_of(WeightsAs::nf4);
  s.model.ffn = 320;
  EXPECT_NO_THROW(plan_mesh(s, {}));
  expect_error(Fault::bad_recipe, {"model.weights", "parallel.tp", "down_proj", "160", "64"}, [&] {
    plan_mesh(s, {{Axis::tp, 2}});
  });
  s.weights = WeightsAs::fp8;
  EXPECT_NO_THROW(plan_mesh(s, {{Axis::tp, 2}}));
  s.weights = WeightsAs::nf4, s.model.ffn = 352;
  expect_error(Fault::bad_recipe, {"model.weights", "down_proj", "352 columns", "64"}, [&] { plan_mesh(s, {}); });
}

}  // namespace
}  // namespace drover
