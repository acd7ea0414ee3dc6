// Which checkpoints stay: pruning never takes the last one that verifies, nor one that is open; what is set aside is
// kept.
#include "trainer/run/checkpoint.h"

#include <gtest/gtest.h>

#include "kernels/cpu/cpu_backend.h"
#include "model/adapter.h"
#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

// A run directory with checkpoints of a small adapter.
class CheckpointFiles : public testing::Test {
 protected:
  void save(int64_t step) {
    save_checkpoint(dir_.path(), {.step = step, .identity = {{"model", "x"}}}, trainables_, *backend_, mesh_);
  }
  std::vector<int64_t> steps() const {
    std::vector<int64_t> steps;
    for (const auto& [step, path] : checkpoint_directories(dir_.path())) steps.push_back(step);
    return steps;
  }
  static ModelConfig config() {
    ModelConfig c;
    c.hidden = 16, c.layers = 1, c.heads = 2, c.kv_heads = 1, c.head_dim = 8, c.ffn = 16, c.vocab = 20;
    return c;
  }
  static std::vector<Slice> slices() {
    const AdapterLayout layout = adapter_layout(config(), [](const std::string&) { return LowRankSpec{2, 1}; });
    const std::vector<FactorSlice> factors = factor_slices(config(), layout, {.layer_end = 1});
    return {factors.begin(), factors.end()};
  }
  static void silent(const std::string&) {}

  ScratchDirectory dir_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  Arena arena_{"adapter", backend_->memory(), 1 << 20}, optimizer_{"optimizer", backend_->memory(), 1 << 20};
  Trainables trainables_{slices(), *backend_, arena_, &optimizer_};
  Mesh mesh_ = make_self_mesh();
};

TEST_F(CheckpointFiles, PruningKeepsTheLastThatVerifies) {
  for (int64_t step : {1, 2, 3, 4}) save(step);
  for (int64_t step : {3, 4}) {
    const fs::path file = dir_ / fmt::format("step-{}", step) / "rank-00000.h5";
    fs::resize_file(file, fs::file_size(file) - 1);
  }
  prune_checkpoints(dir_.path(), 1);
  const auto latest = Checkpoint::latest(dir_.path(), silent);
  ASSERT_TRUE(latest);
  EXPECT_EQ(latest->state().step, 2);
  save(5);
  prune_checkpoints(dir_.path(), 1);
  EXPECT_EQ(steps(), (std::vector<int64_t>{2, 5}));  // 2 is open
}

TEST_F(CheckpointFiles, PruningLeavesTheBest) {
  for (int64_t step : {1, 2, 3, 4}) save(step);
  prune_checkpoints(dir_.path(), 1, 2);
  EXPECT_EQ(steps(), (std::vector<int64_t>{2, 4}));
}

TEST_F(CheckpointFiles, PruningLeavesWhatIsOpen) {
  save(1);
  save(2);
  std::optional<Checkpoint> first = Checkpoint::open(dir_ / "step-1");
  prune_checkpoints(dir_.path(), 1);
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2}));
  std::vector<float> values(2 * 16);
  first->read("parameters", "model.layers.0.self_attn.q_proj.lora_A", 0, 2, 0, 16, values.data());
  first.reset();
  prune_checkpoints(dir_.path(), 1);
  EXPECT_EQ(steps(), std::vector<int64_t>{2});
  EXPECT_FALSE(fs::exists(dir_ / "step-1.tmp"));
}

TEST_F(CheckpointFiles, WhatIsRemovedMeanwhileIsAnInputErrorOfTheSystem) {
  save(1);
  const Checkpoint open = Checkpoint::open(dir_ / "step-1");
  fs::remove_all(dir_ / "step-1");
  std::vector<float> values(2 * 16);
  try {
    open.read("parameters", "model.layers.0.self_attn.q_proj.lora_A", 0, 2, 0, 16, values.data());
    FAIL() << "its file is gone";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::io) << error.what();
  }
}

TEST_F(CheckpointFiles, WhatIsSetAsideStaysThere) {
  for (int round : {1, 2, 3}) {
    save(4);
    write_text(dir_ / "metrics.jsonl", std::to_string(round));
    const SetAside moved = set_aside(dir_.path(), -1);
    EXPECT_EQ(moved.names, (std::vector<std::string>{"step-4", "metrics.jsonl"}));
    EXPECT_EQ(moved.to, dir_ / (round == 1 ? "set-aside" : fmt::format("set-aside-{}", round)));
  }
  EXPECT_EQ(read_text(dir_ / "set-aside" / "metrics.jsonl"), "1");
  EXPECT_EQ(read_text(dir_ / "set-aside-3" / "metrics.jsonl"), "3");
  EXPECT_TRUE(fs::exists(dir_ / "set-aside-2" / "step-4" / "manifest.json"));
  EXPECT_TRUE(set_aside(dir_.path(), -1).names.empty());
}

}  // namespace
}  // namespace drover
