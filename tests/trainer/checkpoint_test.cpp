// Which checkpoints stay: pruning never takes the last one that verifies.
#include <gtest/gtest.h>

#include "tests/base/scratch_directory.h"
#include "trainer/checkpoint.h"

namespace drover {
namespace {

TEST(Checkpoint, PruningKeepsTheLastThatVerifies) {
  ScratchDirectory dir;
  ModelConfig c;
  c.hidden = 16, c.layers = 1, c.heads = 2, c.kv_heads = 1, c.head_dim = 8, c.ffn = 16, c.vocab = 20;
  const AdapterLayout layout = adapter_layout(c, [](const std::string&) { return LowRankSpec{2, 1}; });
  const auto backend = make_cpu_backend(1);
  Arena adapter_arena("adapter", backend->memory(), 1 << 20), optimizer("optimizer", backend->memory(), 1 << 20);
  AdapterSet adapter(c, layout, {.layer_end = 1}, DType::f32, *backend, adapter_arena, &optimizer);
  adapter.initialise(1);
  Mesh mesh = make_self_mesh();
  for (int64_t step : {1, 2, 3, 4}) save_checkpoint(dir.path(), {.step = step, .identity = {{"model", "x"}}}, adapter, *backend, mesh);
  for (int64_t step : {3, 4}) {
    const fs::path file = dir / fmt::format("step-{}", step) / "rank-00000.h5";
    fs::resize_file(file, fs::file_size(file) - 1);
  }
  prune_checkpoints(dir.path(), 1);
  const auto latest = Checkpoint::latest(dir.path(), [](const std::string&) {});
  ASSERT_TRUE(latest);
  EXPECT_EQ(latest->state().step, 2);
  save_checkpoint(dir.path(), {.step = 5, .identity = {{"model", "x"}}}, adapter, *backend, mesh);
  prune_checkpoints(dir.path(), 1);
  EXPECT_EQ(checkpoint_directories(dir.path()).size(), 1u);
}

}  // namespace
}  // namespace drover
