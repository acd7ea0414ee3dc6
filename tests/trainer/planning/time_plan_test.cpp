// Plans of time: the real steps of a recipe's mesh at made-up rates, and a machine that is really measured.
#include "trainer/planning/time_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cpu/cpu_backend.h"
#include "tests/base/scratch_directory.h"
#include "tests/base/variable.h"
#include "trainer/engine/plan.h"
#include "trainer/planning/calibrate.h"
#include "trainer/planning/pass_time.h"

namespace drover {
namespace {

// Every op takes a millisecond, and every message among ranks two.
RoughRates a_millisecond_each() {
  return {.name = "test",
          .product = 1e30,
          .product_fp8 = 1e30,
          .attention = 1e30,
          .attention_backward = 1e30,
          .memory = 1e30,
          .call_seconds = 1e-3,
          .link = 1e30,
          .link_seconds = 2e-3,
          .network = 1e30,
          .network_seconds = 1,
          .ranks_a_node = 8};
}

constexpr MadeModel kTiny{.hidden = 64, .ffn = 96, .head_dim = 16, .kv_heads = 2, .layers = 4, .vocab = 128};

EngineSettings settings(const MeshShape& shape, int64_t micro_batches) {
  EngineSettings s = settings_of({.model = kTiny, .tokens = 32, .document = 16, .r = 4}, {});
  s.partition = partition_layers(4, shape.pp(), 0);
  s.capacity.local_micro_batches = micro_batches;
  return s;
}

PlannedWork work_of(const MeshShape& shape, int64_t micro_batches) {
  const Batch batch = worst_batch(32, 32, 16, micro_batches, shape.dp());
  return {.batch = [batch](int, int64_t) { return batch; }, .sampled = {0}, .steps = 10, .steps_per_epoch = 5};
}

MeshShape mesh(Axis axis, int size) {
  MeshShape shape;
  shape[axis] = size;
  return shape;
}

TEST(TimePlan, OneRankTakesTheSumOfItsOps) {
  const Rates rates(a_millisecond_each());
  const TimePlan plan = plan_time(settings({}, 2), {}, work_of({}, 2), {.rates = rates, .peak = 1e12});
  double ops = 0;
  for (const auto& [op, seconds] : plan.ops) ops += seconds;
  EXPECT_NEAR(plan.step_seconds, ops, 1e-9);
  EXPECT_NEAR(plan.ops.at("attention"), 2 * 4 * 1e-3, 1e-9);  // micro-batches, layers
  EXPECT_DOUBLE_EQ(plan.bubble, 0);
  EXPECT_DOUBLE_EQ(plan.tokens_per_second, 64 / plan.step_seconds);
  EXPECT_DOUBLE_EQ(plan.epoch_seconds, 5 * plan.step_seconds);
  EXPECT_DOUBLE_EQ(plan.run_seconds, 10 * plan.step_seconds);
}

// A validation is so many evaluations of what was sampled, forward only, in a pipeline through all its stages.
TEST(TimePlan, ValidationsTakeTheirEvaluations) {
  const Rates rates(a_millisecond_each());
  const auto evaluation = [&](const MeshShape& shape) {
    PlannedWork work = work_of(shape, 2);
    const TimePlan without = plan_time(settings(shape, 2), shape, work, {.rates = rates});
    work.validation = {worst_batch(32, 32, 16, 2, 1)};
    work.validation_batches = 3, work.validations = 5;
    const TimePlan with = plan_time(settings(shape, 2), shape, work, {.rates = rates});
    EXPECT_DOUBLE_EQ(with.step_seconds, without.step_seconds);
    return std::pair{(with.run_seconds - without.run_seconds) / 15, without.step_seconds};
  };
  const auto [one, step] = evaluation({});
  EXPECT_GT(one, 2 * 4 * 5 * 1e-3) << "two micro-batches, four layers, at least five ops each";
  EXPECT_LT(one, step / 2);
  const auto [two, its_step] = evaluation(mesh(Axis::pp, 2));
  EXPECT_GT(two, 0.7 * one) << "the second stage waits for the first";
}

// At 2 MB/s four checkpoints of 3 MB take 6 s, and an adapter of 1 MB half a second.
TEST(TimePlan, CheckpointsAndTheAdapterAreWritten) {
  const Rates rates(a_millisecond_each());
  PlannedWork work = work_of({}, 2);
  work.checkpoints = 4, work.checkpoint_bytes = 3'000'000, work.adapter_bytes = 1'000'000;
  const TimePlan plan = plan_time(settings({}, 2), {}, work, {.rates = rates, .write = 2e6});
  EXPECT_DOUBLE_EQ(plan.checkpoint_seconds, 6);
  EXPECT_DOUBLE_EQ(plan.export_seconds, 0.5);
  EXPECT_DOUBLE_EQ(plan.run_seconds, 10 * plan.step_seconds + 6.5);
  EXPECT_TRUE(plan.left_out.empty());
  work.left_out = {"what the work leaves out"};
  const TimePlan unknown = plan_time(settings({}, 2), {}, work, {.rates = rates});
  EXPECT_DOUBLE_EQ(unknown.run_seconds, 10 * plan.step_seconds);
  EXPECT_THAT(unknown.left_out,
              testing::ElementsAre(work.left_out[0], testing::HasSubstr("drover doctor --calibrate")));
  const TimePlan of_table = plan_time(settings({}, 2), {}, work, {.rates = rates, .why_no_write = "nobody knows"});
  EXPECT_THAT(of_table.left_out, testing::Contains("checkpoints, and writing the adapter: nobody knows"));
}

TEST(TimePlan, WhatIsExportedIsEvaluatedTwiceAndServed) {
  const Rates rates(a_millisecond_each());
  PlannedWork work = work_of({}, 2);
  work.validation = {worst_batch(32, 32, 16, 2, 1)};
  work.validation_batches = 1, work.validations = 1;
  work.compared = PlannedWork::Compared{.batches = {work.validation.front(), work.validation.front()}};
  const EngineSettings s = settings({}, 2);
  const TimePlan evaluated = plan_time(s, {}, work, {.rates = rates});
  EXPECT_DOUBLE_EQ(evaluated.export_seconds, 4 * evaluated.validation_seconds);
  work.compared->served = {12, 5};
  work.compared->pass_rows = 8;
  const TimePlan plan = plan_time(s, {}, work, {.rates = rates});
  PassTimes passes(s, s.traits, {}, rates, 0, 12);
  const double served = passes.scoring_seconds(12, 8) + passes.scoring_seconds(5, 8);
  EXPECT_NEAR(plan.export_seconds, evaluated.export_seconds + served, 1e-9);
  EXPECT_NEAR(plan.run_seconds, 10 * plan.step_seconds + 5 * plan.validation_seconds + served, 1e-9);
}

TEST(TimePlan, AnswersTakeTheirPassesEachTime) {
  const Rates rates(a_millisecond_each());
  PlannedWork work = work_of({}, 2);
  work.answers = PlannedWork::Answers{.prompts = 3, .prompt_tokens = 8, .tokens = 5, .at_once = 2, .times = 7};
  EngineSettings s = settings({}, 2);
  const TimePlan plan = plan_time(s, {}, work, {.rates = rates});
  PassTimes passes(s, s.traits, {}, rates, 2, 16);
  const double prompt = passes.first_token_seconds(8, 512), two = passes.seconds({.answers = 2, .answer_context = 10}),
               one = passes.seconds({.answers = 1, .answer_context = 10});
  EXPECT_NEAR(plan.answer_seconds, 7 * (3 * prompt + 4 * (two + one)), 1e-9);
  EXPECT_DOUBLE_EQ(plan.run_seconds, 10 * plan.step_seconds + plan.answer_seconds);
  s.streamed = true;
  EXPECT_DOUBLE_EQ(plan_time(s, {}, work, {.rates = rates}).answer_seconds, 0);
}

// On a CPU a step reads the layers' frozen weights between its ops, as a copy of them takes.
TEST(TimePlan, StreamedWeightsAreReadInAStep) {
  RoughRates slow = a_millisecond_each();
  slow.memory = 1e6, slow.call_seconds = 0;
  const Rates rates(slow);
  EngineSettings resident = settings({}, 1), streamed = resident;
  streamed.streamed = true;
  const auto seconds = [&](const EngineSettings& s) {
    return plan_time(s, {}, work_of({}, 1), {.rates = rates}).step_seconds;
  };
  // Forward and back, but for what is still there: four layers of q, k, v, o, gate, up, down in fp32 or bf16.
  const double weights = 4.0 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64),
               copies = seconds(streamed) - seconds(resident);
  EXPECT_GT(copies * 1e6, 2 * weights * 2);
  EXPECT_LT(copies * 1e6, 2 * weights * 4 * 2.1);
}

// Each node reads what its ranks hold of a replica; another replica reads it again, elsewhere.
TEST(TimePlan, TheNodesOfAReplicaShareItsFiles) {
  RoughRates pairs = a_millisecond_each();
  pairs.ranks_a_node = 2;
  const Rates rates(pairs);
  const auto seconds = [&](Axis axis, int size) {
    const MeshShape shape = mesh(axis, size);
    PlannedWork work = work_of(shape, 1);
    work.file_bytes = 8'000'000'000;
    return plan_time(settings(shape, 1), shape, work, {.rates = rates, .read = 1e9}).first_step_seconds;
  };
  EXPECT_DOUBLE_EQ(seconds(Axis::tp, 1), 8);
  EXPECT_DOUBLE_EQ(seconds(Axis::tp, 2), 8);
  EXPECT_DOUBLE_EQ(seconds(Axis::pp, 4), 4);
  EXPECT_DOUBLE_EQ(seconds(Axis::dp, 4), 8);
}

TEST(TimePlan, TensorParallelRanksWaitForTheirSums) {
  const Rates rates(a_millisecond_each());
  const MeshShape two = mesh(Axis::tp, 2);
  const TimePlan plan = plan_time(settings(two, 1), two, work_of(two, 1), {.rates = rates});
  // Two sums a layer forward and two backward, and those of the head and the step: each 2 ms.
  EXPECT_GE(plan.exposed_seconds, 4 * 4 * 2e-3);
  EXPECT_LT(plan.exposed_seconds, plan.step_seconds);
}

TEST(TimePlan, AGroupBeyondANodeSpeaksOverTheNetwork) {
  RoughRates small_nodes = a_millisecond_each();
  small_nodes.ranks_a_node = 1;
  const Rates here(a_millisecond_each()), spread(small_nodes);
  const MeshShape two = mesh(Axis::dp, 2);
  const auto plan = [&](const Rates& rates) {
    return plan_time(settings(two, 1), two, work_of(two, 1), {.rates = rates});
  };
  EXPECT_GT(plan(spread).step_seconds, plan(here).step_seconds + 0.9);
}

TEST(TimePlan, StagesShareTheWorkAndIdleAtItsEnds) {
  const Rates rates(a_millisecond_each());
  const MeshShape two = mesh(Axis::pp, 2);
  const TimePlan one = plan_time(settings({}, 8), {}, work_of({}, 8), {.rates = rates}),
                 half = plan_time(settings(two, 8), two, work_of(two, 8), {.rates = rates});
  EXPECT_GT(half.bubble, 1.0 / (8 + 1) - 0.05);
  EXPECT_LT(half.bubble, 0.35);
  EXPECT_LT(half.step_seconds, 0.8 * one.step_seconds);
}

TEST(TimePlan, TheDpRankWithMostToDoDecides) {
  const Rates rates(a_millisecond_each());
  const MeshShape two = mesh(Axis::dp, 2);
  PlannedWork uneven = work_of(two, 2);
  const Batch more = worst_batch(32, 32, 16, 2, 2), less = worst_batch(32, 32, 16, 1, 2);
  uneven.batch = [&](int dp_rank, int64_t) { return dp_rank == 1 ? more : less; };
  const TimePlan plan = plan_time(settings(two, 2), two, uneven, {.rates = rates}),
                 even = plan_time(settings(two, 2), two, work_of(two, 2), {.rates = rates});
  EXPECT_DOUBLE_EQ(plan.step_seconds, even.step_seconds);
}

// By hand, for a token: 4 layers of q 64·64, k and v 32·64, o 64·64, gate, up and down 96·64, four FLOPs a weight; the
// head 128·64, four; the adapter's r·(in + out), six; attention of the 136 pairs of 16 tokens, 12·H·E·layers a pair.
TEST(TimePlan, ModelFlopsByHand) {
  const EngineSettings s = settings({}, 1);
  const Batch batch = worst_batch(32, 32, 16, 1, 1);
  const double frozen = 4.0 * 4 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64) * 32, head = 4.0 * 128 * 64 * 32;
  const double adapter = 6.0 * 4 * 4 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 96)) * 32;
  const double attention = 12.0 * 64 * 4 * 2 * 136;
  EXPECT_DOUBLE_EQ(model_flops(s.model, s.adapter, batch), frozen + head + adapter + attention);
}

// What is measured of a model says how long its own step takes.
TEST(TimePlan, AMeasuredMachinePredictsWhatItMeasured) {
  const ScratchDirectory cache;
  const Variable there("XDG_CACHE_HOME", cache.path().string());
  const MadeStep step{.model = {.hidden = 128, .ffn = 256, .head_dim = 32, .kv_heads = 2, .layers = 4, .vocab = 512},
                      .tokens = 128,
                      .document = 64,
                      .r = 4};
  const Device device{make_cpu_backend(1), make_self_mesh(), 1};
  const Calibration c = calibrate(
      device, {"test", 1, 1},
      {.steps = {{step, 5}}, .passes = {{.model = step.model, .contexts = {8, 40}, .sequences = 2, .pass = 32}}},
      [](const std::string&) {});
  EXPECT_GT(c.ops.size(), 30);
  EXPECT_TRUE(std::ranges::any_of(c.ops, [](const OpSample& s) { return s.generates && s.op == "attention"; }));
  const Rates rates({}, c.ops, c.messages);
  const Batch batch = batch_of(step);
  const PlannedWork work{
      .batch = [&](int, int64_t) { return batch; }, .sampled = {0}, .steps = 1, .steps_per_epoch = 1};
  const EngineSettings s = settings_of(step, device.backend->traits());
  const TimePlan plan = plan_time(s, {}, work, {.rates = rates, .outside_per_call = c.outside_per_call});
  double measured = 0;
  for (const OpSample& sample : c.ops) {
    if (!sample.generates && sample.op == "attention_backward") measured += 4 * sample.seconds;
  }
  EXPECT_NEAR(plan.ops.at("attention_backward") / measured, 1, 0.05);
  EXPECT_GT(c.write, 0);
  EXPECT_GT(c.read, 0);
  EXPECT_TRUE(std::filesystem::is_empty(cache / "drover")) << "the file that was measured is gone";
}

}  // namespace
}  // namespace drover
