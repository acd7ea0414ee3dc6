// Frozen weights that pass through a ring have the bits of those that stay: trained and evaluated on every mesh, in
// every format, one micro-batch at a time and several together; and they take the bytes that are planned.
#include <gtest/gtest.h>

#include <mutex>

#include "kernels/comm/threads.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/kept_weights.h"
#include "tests/support/made_up.h"
#include "trainer/engine/plan.h"

namespace drover {
namespace {

constexpr int64_t kLayers = 6, kMicroBatches = 3;

struct Case {
  std::string name;
  DType dtype;
  WeightsAs weights;
};
const Case kCases[] = {{"fp32", DType::f32, WeightsAs::as_is},
                       {"bf16", DType::bf16, WeightsAs::as_is},
                       {"fp8", DType::bf16, WeightsAs::fp8},
                       {"nf4", DType::f32, WeightsAs::nf4}};

EngineSettings settings_of(const Case& c, const MeshShape& mesh, bool recompute) {
  EngineSettings s;
  s.model.hidden = 128, s.model.layers = kLayers, s.model.heads = 4, s.model.kv_heads = 2, s.model.head_dim = 32,
  s.model.ffn = 256, s.model.vocab = 101, s.model.max_positions = 64;
  s.adapter = adapter_layout(s.model, [](const std::string&) { return LowRankSpec{3, 1.5f}; });
  s.partition = partition_layers(kLayers, mesh.pp(), 0);
  s.dtype = c.dtype;
  s.weights = c.weights;
  s.max_positions = 32;
  s.recompute = recompute;
  s.capacity.micro_batch = {40, 40};
  s.capacity.local_micro_batches = kMicroBatches;
  s.optimizer = {.learning_rate = {LearningRateShape::constant, 5e-3}, .weight_decay = 0.01, .max_grad_norm = 1};
  return s;
}

Batch batch_of(int64_t step, const Mesh& mesh) {
  Batch batch;
  for (int i = 0; i < kMicroBatches * mesh.shape.dp(); ++i) {
    const MicroBatch m = made_up_micro_batch(3, std::vector<int64_t>{11 + 3 * i, 5},
                                             static_cast<int>(20 * step + 2 * i), 101, batch.total++);
    for (float w : m.weights) batch.weight_sum += w;
    if (i / kMicroBatches == mesh.position.dp()) batch.micro_batches.push_back(m);
  }
  return batch;
}

KeptWeights& weights() {
  static VariedWeights drawn(11, 0.1f, 0.5f);
  static KeptWeights kept(drawn);
  return kept;
}

struct Trained {
  std::vector<double> numbers;  // losses and norms of steps, the loss of an evaluation
  std::vector<float> parameters;
  int64_t copied_bytes = 0;  // in the last step
  ArenaBytes reached;
};

Trained train(const EngineSettings& s, const Device& device, const ArenaBytes& planned) {
  Replica replica(s, device, weights(), planned);
  Engine engine(s, replica, planned.saved);
  replica.adapter->load([](const FactorSlice& f, float* to) {
    for (int64_t i = 0; i < f.size(); ++i) to[i] = drawn(5, f.name, f.row_begin * f.cols + f.col_begin + i, 0, 0.4f);
  });
  Trained t;
  const auto copied = [&] { return replica.streamed_weights ? replica.streamed_weights->copied_bytes() : 0; };
  for (int64_t step = 1; step <= 3; ++step) {
    const int64_t before = copied();
    const StepResult result = engine.train_step(batch_of(step, replica.device.mesh), step);
    t.numbers.insert(t.numbers.end(), {result.loss, result.grad_norm});
    t.copied_bytes = copied() - before;
  }
  t.numbers.push_back(engine.evaluate(batch_of(9, replica.device.mesh)));
  const Tensor parameters = replica.adapter->parameters;
  t.parameters.assign(parameters.as<float>(), parameters.as<float>() + parameters.size());
  t.reached = engine.peak();
  return t;
}

// Of every rank.
std::vector<Trained> train(const EngineSettings& s, const MeshShape& shape) {
  const std::vector<RankPlan> plans = plan_mesh(s, shape);
  weights();  // before threads ask for it
  std::vector<Trained> of_ranks(static_cast<size_t>(shape.size()));
  run_on_threads(shape, [&](Mesh& mesh) {
    const auto rank = static_cast<size_t>(mesh.world->rank());
    of_ranks[rank] = train(s, Device{make_cpu_backend(1), mesh}, plans[rank].bytes);
  });
  return of_ranks;
}

class Streamed : public testing::TestWithParam<std::tuple<Case, MeshShape>> {};

TEST_P(Streamed, HaveTheBitsOfResidentWeights) {
  const auto& [c, mesh] = GetParam();
  for (const bool recompute : {false, true}) {
    EngineSettings s = settings_of(c, mesh, recompute);
    const std::vector<Trained> resident = train(s, mesh);
    s.streamed = true;
    const std::vector<Trained> streamed = train(s, mesh);
    const std::vector<RankPlan> plans = plan_mesh(s, mesh);
    for (size_t rank = 0; rank < streamed.size(); ++rank) {
      SCOPED_TRACE(fmt::format("rank {}, recompute {}", rank, recompute));
      EXPECT_EQ(streamed[rank].numbers, resident[rank].numbers);
      EXPECT_EQ(streamed[rank].parameters, resident[rank].parameters);
      EXPECT_EQ(streamed[rank].reached.weights, plans[rank].bytes.weights);
      EXPECT_LE(streamed[rank].reached.total(), plans[rank].bytes.total());
      EXPECT_LT(streamed[rank].reached.weights, resident[rank].reached.weights);
      EXPECT_EQ(streamed[rank].copied_bytes, plans[rank].copied_bytes);
      EXPECT_GT(plans[rank].copied_bytes, 0);
      EXPECT_EQ(resident[rank].copied_bytes, 0);
    }
  }
}

std::string name_of(const MeshShape& mesh) { return fmt::format("tp{}pp{}dp{}", mesh.tp(), mesh.pp(), mesh.dp()); }

INSTANTIATE_TEST_SUITE_P(
    Meshes, Streamed,
    testing::Combine(testing::ValuesIn(kCases),
                     testing::Values(MeshShape{}, MeshShape{{Axis::tp, 2}}, MeshShape{{Axis::pp, 2}},
                                     MeshShape{{Axis::dp, 2}}, MeshShape{{Axis::tp, 2}, {Axis::pp, 2}})),
    [](const auto& info) { return std::get<0>(info.param).name + "_" + name_of(std::get<1>(info.param)); });

// Two slots: all blocks but two come once on the way forward and once on the way back, for all micro-batches where only
// inputs are kept, else for each.
TEST(StreamedCopies, AreSharedByMicroBatchesOfWhichOnlyInputsAreKept) {
  EngineSettings s = settings_of(kCases[0], {}, true);
  s.streamed = true;
  const RankPlan together = plan_rank(s, {}, {});
  const int64_t block_bytes = together.ring_bytes / 2;
  EXPECT_EQ(together.copied_bytes, 2 * (kLayers - 2) * block_bytes);
  EXPECT_EQ(together.tokens_together, kMicroBatches * 40);
  s.recompute = false;
  const RankPlan apart = plan_rank(s, {}, {});
  EXPECT_EQ(apart.copied_bytes, kMicroBatches * 2 * (kLayers - 2) * block_bytes);
  EXPECT_EQ(apart.tokens_together, 40);
  s.recompute = s.deterministic = true;
  EXPECT_EQ(plan_rank(s, {}, {}).tokens_together, 40);
  s.deterministic = false, s.partition = partition_layers(kLayers, 2, 0);
  EXPECT_EQ(plan_rank(s, {{Axis::pp, 2}}, {}).tokens_together, 40);
}

TEST(StreamedCopies, AreSharedByAsManyMicroBatchesAsHideThem) {
  EngineSettings s = settings_of(kCases[0], {}, true);
  s.streamed = true;
  s.capacity.micro_batch = {5000, 5000};
  s.capacity.local_micro_batches = 6;
  EXPECT_EQ(plan_rank(s, {}, {}).tokens_together, 20'000);
  const std::string schedule = print(schedule_of_run(s, {}));
  EXPECT_TRUE(schedule.starts_with("stage 0: F0 F1 F2 F3 B0 B1 B2 B3 F4 F5 B4 B5\n")) << schedule;
}

TEST(StreamedPlan, SaysWhatTheHostHoldsAndHowManyTokensHideTheCopies) {
  EngineSettings s = settings_of(kCases[1], {}, true);
  s.streamed = true;
  EXPECT_EQ(plan_rank(s, {}, {}).host_bytes, 0);
  s.traits.own_memory = true;
  const RankPlan p = plan_rank(s, {}, {});
  EXPECT_EQ(p.host_bytes, kLayers * p.ring_bytes / 2);
  // A layer's forward and backward with recompute are 6 FLOPs a weight, and two copies of 2 bytes a weight.
  const double tokens = kComputeRate * 4 / (kCopyRate * 6) * (kLayers - 2) / kLayers;
  EXPECT_GT(p.tokens_to_hide(), 0.6 * tokens);
  EXPECT_LT(p.tokens_to_hide(), tokens);
  const std::string text = print_streaming({p});
  EXPECT_NE(text.find(fmt::format("from {} tokens on", p.tokens_to_hide())), std::string::npos) << text;
  s.streamed = false;
  EXPECT_EQ(print_streaming({plan_rank(s, {}, {})}), "");
}

// On GPUs two parts of a micro-batch may take turns: a slot more, on every rank.
TEST(StreamedPlan, EveryRankOfTensorParallelismHasOneRing) {
  EngineSettings s = settings_of(kCases[1], {}, true);
  s.streamed = s.overlaps_sums = s.traits.own_memory = true;
  const MeshShape shape{{Axis::tp, 2}};
  const std::vector<RankPlan> plans = plan_mesh(s, shape);
  ASSERT_EQ(plans.size(), 2u);
  for (const RankPlan& plan : plans) EXPECT_EQ(plan.bytes, plan_rank(s, shape, plan.position).bytes) << plan.rank;
  EXPECT_EQ(plans[1].ring_bytes * kLayers, plans[1].host_bytes * 3);
}

// Micro-batches of which each is cut where it is worst for the scratch of its neighbour.
TEST(StreamedPlan, HasRoomForUnequalPartsThatMeet) {
  EngineSettings s = settings_of(kCases[1], {}, true);
  s.overlaps_sums = true;
  s.least_part_rows = 1;
  const MeshShape shape{{Axis::tp, 2}};
  const int64_t apart = plan_rank(s, shape, {}).bytes.scratch;
  s.streamed = true;
  EXPECT_GT(plan_rank(s, shape, {}).bytes.scratch, apart);
}

}  // namespace
}  // namespace drover
