// What runs and what is held, read off the counting backend: no gradient GEMM for a frozen weight, nothing below the
// lowest adapter, memory linear in the tokens and nearly flat in the vocabulary, and the shipped recipes inside their
// GPUs.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "kernels/base/error.h"
#include "kernels/count/count.h"
#include "kernels/devices/devices.h"
#include "trainer/engine/plan.h"
#include "trainer/setup/adapter_setup.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/inputs.h"

namespace drover {
namespace {

EngineSettings settings_of(ModelConfig model, int64_t tokens) {
  EngineSettings s;
  s.model = std::move(model);
  s.adapter = empty_layout(s.model);
  s.partition = {{0, s.model.layers}};
  s.dtype = DType::bf16;
  s.max_positions = tokens;
  s.capacity.micro_batch = {tokens, tokens};
  return s;
}

void adapt(EngineSettings& s, int64_t layer, Projection p) {
  s.adapter[static_cast<size_t>(layer)][static_cast<size_t>(p)] = LowRankSpec{7, 1};
}

ModelConfig tiny() {
  ModelConfig c;
  c.hidden = 64, c.layers = 6, c.heads = 4, c.kv_heads = 2, c.head_dim = 16, c.ffn = 96, c.vocab = 100,
  c.max_positions = 4096;
  return c;
}

struct Counted {
  std::shared_ptr<CountBackend> counting = std::make_shared<CountBackend>();
  CountBackend& backend = *counting;
  NoWeights nothing;
  Replica replica;
  Engine engine;
  explicit Counted(const EngineSettings& s)
      : replica(s, {counting, make_count_mesh({}, {})}, nothing, kPlenty), engine(s, replica, kPlenty.saved) {
    backend.record_shapes(true);
    engine.train_step(worst_batch(s.capacity.micro_batch.tokens, s.capacity.micro_batch.tokens, s.max_positions, 1, 1),
                      1);
  }
};

TEST(Counting, AllLinearsOfAllLayers) {
  EngineSettings s = settings_of(tiny(), 32);
  for (int64_t l = 0; l < 6; ++l) {
    for (Projection p : kAllProjections) adapt(s, l, p);
  }
  Counted c(s);
  EXPECT_EQ(c.backend.calls("linear"), 6 * 4 + 1);         // four groups a layer, and the head's one block
  EXPECT_EQ(c.backend.calls("linear_dx"), 6 * 4 - 1 + 1);  // every group but the lowest qkv, and the head
  EXPECT_EQ(c.backend.calls("gemm"), 6 * (4 + 7 * 2));     // dA of each group, v and dB of each linear
  EXPECT_EQ(c.backend.calls("attention_backward"), 6);
}

TEST(Counting, NoGradientGemmHasTheShapeOfAFrozenWeight) {
  EngineSettings s = settings_of(tiny(), 33);
  for (int64_t l = 0; l < 6; ++l) {
    for (Projection p : kAllProjections) adapt(s, l, p);
  }
  Counted c(s);
  // dW would multiply two (33, ·) operands of the width of a weight; every gemm here has a side of the rank of one, two
  // or three adapters of rank 7, which no weight has.
  for (const std::string& shape : c.backend.shapes()) {
    if (!shape.starts_with("gemm")) continue;
    const auto has_side = [&](int n) {
      return shape.find(fmt::format(",{})", n)) != std::string::npos ||
             shape.find(fmt::format("({},", n)) != std::string::npos;
    };
    EXPECT_TRUE(has_side(7) || has_side(14) || has_side(21)) << shape;
  }
  // And what is held for training is the adapters' own: gradients and two moments of fp32, and the clip factor.
  EXPECT_EQ(c.replica.adapter->gradients.rows, trainable_parameters(s.model, s.adapter));
  EXPECT_EQ(c.engine.peak().optimizer,
            3 * ((trainable_parameters(s.model, s.adapter) * 4 + Arena::kAlign - 1) / Arena::kAlign * Arena::kAlign) +
                Arena::kAlign);
}

TEST(Counting, NothingRunsOrIsKeptBelowTheLowestAdapter) {
  EngineSettings top = settings_of(tiny(), 32), upper = settings_of(tiny(), 32);
  adapt(top, 5, Projection::down);
  adapt(upper, 3, Projection::q);
  Counted only_down(top);
  EXPECT_EQ(only_down.backend.calls("linear_dx"), 1);  // the head's
  EXPECT_EQ(only_down.backend.calls("attention_backward"), 0);
  EXPECT_EQ(only_down.backend.calls("rms_norm_backward"), 1);  // the final norm's
  Counted from_three(upper);
  EXPECT_EQ(from_three.backend.calls("attention_backward"), 3);
  EXPECT_EQ(from_three.backend.calls("linear_dx"), 4 + 4 + 3 + 1);
  EXPECT_LT(only_down.engine.peak().saved, from_three.engine.peak().saved / 2);
}

int64_t beyond_weights(const EngineSettings& s) {
  const ArenaBytes b = plan_rank(s, {}, {}).bytes;
  return b.total() - b.weights;
}

// The logits of a chunk of rows are as many for a large vocabulary as for a very large one.
TEST(Memory, IsLinearInTokensAndNearlyFlatInALargeVocabulary) {
  const ModelConfig model = *known_model("smollm2-135m");
  const auto with = [&](int64_t tokens, int64_t vocab) {
    ModelConfig m = model;
    m.vocab = vocab;
    EngineSettings s = settings_of(m, tokens);
    for (int64_t l = 0; l < m.layers; ++l) {
      for (Projection p : kAllProjections) adapt(s, l, p);
    }
    return beyond_weights(s);
  };
  EXPECT_LE(static_cast<double>(with(4096, model.vocab)), 2.1 * static_cast<double>(with(2048, model.vocab)));
  EXPECT_LE(static_cast<double>(with(2048, 40 * model.vocab)), 1.02 * static_cast<double>(with(2048, 4 * model.vocab)));
}

TEST(Memory, RecomputeKeepsOneTensorALayer) {
  EngineSettings s = settings_of(*known_model("smollm2-135m"), 2048);
  adapt(s, 0, Projection::q);
  EngineSettings full = s;
  full.recompute = true;
  EXPECT_LT(plan_rank(full, {}, {}).bytes.saved * 6, plan_rank(s, {}, {}).bytes.saved);
}

struct ShippedRecipe {
  const char* name;
  int ranks;
  int64_t most;            // of a rank's arenas, bytes
  double bytes_of_weight;  // of all ranks' weights, at least
};
void PrintTo(const ShippedRecipe& r, std::ostream* out) { *out << r.name; }

class Shipped : public testing::TestWithParam<ShippedRecipe> {};

TEST_P(Shipped, EveryRankFitsItsGpu) {
  const auto [name, ranks, most, bytes_of_weight] = GetParam();
  const ReadRecipe read = read_recipe(fs::path(DROVER_SOURCE_DIR) / "configs" / "recipes" / name, {});
  const MeshShape shape = check_mesh(read.recipe, ranks);
  const ModelConfig model = model_config_of(read.recipe, ShapeFrom::directory_or_name);
  const AdapterLayout layout = adapter_layout_of(model, adapter_config(read));
  EngineSettings settings = engine_settings(read.recipe, model, layout, shape, nullptr);
  settings.stored = scaling_of(read.recipe);
  settings.traits = traits_of(DeviceKind::cuda);
  const std::vector<RankPlan> plans = plan_mesh(settings, shape);
  ASSERT_EQ(static_cast<int>(plans.size()), ranks);
  int64_t weights = 0;
  for (const RankPlan& p : plans) {
    EXPECT_LT(p.bytes.total(), most) << "rank " << p.rank;
    weights += p.bytes.weights + p.host_bytes;
  }
  // All of the model is somewhere.
  EXPECT_GE(static_cast<double>(weights), static_cast<double>(parameter_count(model)) * bytes_of_weight);
}

INSTANTIATE_TEST_SUITE_P(Recipes, Shipped,
                         testing::Values(ShippedRecipe{"llama3.1-8b-lora.yaml", 1, 76'000'000'000, 2},
                                         ShippedRecipe{"llama3.1-70b-lora.yaml", 8, 76'000'000'000, 2},
                                         ShippedRecipe{"llama3.1-405b-lora.yaml", 32, 76'000'000'000, 2},
                                         ShippedRecipe{"llama3.1-8b-nf4-lora.yaml", 1, 8'500'000'000, 0.7},
                                         ShippedRecipe{"llama3.1-70b-nf4-lora.yaml", 1, 76'000'000'000, 0.55},
                                         ShippedRecipe{"llama3.1-405b-fp8-lora.yaml", 8, 70'000'000'000, 1.19},
                                         ShippedRecipe{"llama3.1-405b-lora-streamed.yaml", 8, 76'000'000'000, 2}),
                         [](const auto& info) {
                           std::string name = fs::path(info.param.name).stem().string();
                           std::ranges::replace_if(
                               name, [](char c) { return !std::isalnum(c); }, '_');
                           return name;
                         });

// launch/README.md's table of what fits where is what plans say.
TEST(Memory, TheTableOfMachinesIsThePlans) {
  std::ifstream page(fs::path(DROVER_SOURCE_DIR) / "launch" / "README.md");
  int figures = 0;
  for (std::string line; std::getline(page, line);) {
    if (!line.starts_with("| llama3.1-")) continue;
    std::vector<std::string> cells;
    std::istringstream row(line.substr(1));
    for (std::string cell; std::getline(row, cell, '|');) cells.push_back(cell);
    ASSERT_EQ(cells.size(), 6u) << line;
    const std::string model = cells[0].substr(1, cells[0].size() - 2),
                      weights = cells[1].substr(1, cells[1].find(' ', 1) - 1);
    for (size_t column = 2; column < cells.size(); ++column) {
      if (cells[column].find_first_not_of(' ') == std::string::npos) continue;
      const int tp = 1 << (column - 2);
      std::vector<std::string> overrides = {"model.path=models/" + model, "model.weights=" + weights,
                                            fmt::format("parallel.tp={}", tp)};
      if (cells[1].find("streamed") != std::string::npos) overrides.push_back("memory.weights=host");
      const ReadRecipe read =
          read_recipe(fs::path(DROVER_SOURCE_DIR) / "configs/recipes/llama3.1-405b-fp8-lora.yaml", overrides);
      const MeshShape shape = check_mesh(read.recipe, tp);
      const ModelConfig config = model_config_of(read.recipe, ShapeFrom::directory_or_name);
      EngineSettings settings =
          engine_settings(read.recipe, config, adapter_layout_of(config, adapter_config(read)), shape, nullptr);
      settings.stored = scaling_of(read.recipe);
      settings.traits = traits_of(DeviceKind::cuda);
      settings.overlaps_sums = true;  // as `drover plan` takes it
      const double planned = static_cast<double>(plan_rank(settings, shape, {}).bytes.total()) / 1e9;
      EXPECT_EQ(fmt::format(" {:.1f} ", planned), cells[column]) << line;
      ++figures;
    }
  }
  EXPECT_EQ(figures, 30);
}

}  // namespace
}  // namespace drover
