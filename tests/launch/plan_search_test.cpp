// The search for a layout: what it gives fits the memory, is at least as fast as the shipped recipe, and says what to
// do where nothing fits.
#include "launch/plan_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "trainer/setup/inputs.h"

namespace drover {
namespace {

using testing::HasSubstr;

ReadRecipe shipped(const std::string& name, const std::vector<std::string>& overrides = {}) {
  return read_recipe(std::string(DROVER_SOURCE_DIR) + "/configs/recipes/" + name + ".yaml", overrides);
}

struct Asked {
  explicit Asked(const std::string& recipe, std::vector<int> gpus, std::string_view gpu = "h100",
                 const std::vector<std::string>& overrides = {})
      : read(shipped(recipe, overrides)),
        model(model_config_of(read.recipe, ShapeFrom::directory_or_name)),
        question{read, model, machine(shipped_hardware(), gpu), std::move(gpus)} {}
  ReadRecipe read;
  ModelConfig model;
  SearchQuestion question;
};

TEST(PlanSearch, WhatItGivesFitsAndIsNoSlowerThanTheShippedRecipe) {
  for (const auto& [name, gpus] : {std::pair{"llama3.1-8b-lora", 1}, {"llama3.1-70b-lora", 8}}) {
    const Asked asked(name, {gpus});
    const SearchResult result = search(asked.question);
    ASSERT_FALSE(result.fastest.empty()) << name;
    EXPECT_LE(result.fastest.size(), 5);
    for (const LayoutPlan& p : result.fastest) {
      EXPECT_LE(static_cast<double>(p.bytes), asked.question.machine.memory_bytes) << p.layout.text();
      EXPECT_EQ(p.layout.shape.size(), gpus);
      EXPECT_LE(p.tokens_per_second, result.fastest.front().tokens_per_second);
    }
    const Recipe& r = asked.read.recipe;
    Layout own{.micro_batch = r.train.micro_batch_size,
               .recompute = r.memory.activation_checkpointing == ActivationCheckpointing::full,
               .weights = r.model.weights};
    own.shape[Axis::tp] = static_cast<int>(r.parallel.tp), own.shape[Axis::pp] = static_cast<int>(r.parallel.pp);
    own.shape[Axis::dp] = gpus / (own.shape.tp() * own.shape.pp());
    EXPECT_GE(result.fastest.front().tokens_per_second, 0.999 * plan_layout(asked.question, own).tokens_per_second);
  }
}

TEST(PlanSearch, EveryNumberOfGpusHasItsBest) {
  const Asked asked("llama3.1-8b-lora", {1, 2, 4});
  const SearchResult result = search(asked.question);
  ASSERT_EQ(result.by_gpus.size(), 3);
  for (size_t i = 1; i < 3; ++i)
    EXPECT_GT(result.by_gpus[i].tokens_per_second, result.by_gpus[i - 1].tokens_per_second);
}

TEST(PlanSearch, WhatDoesNotFitIsShortOfMemoryAndSaysWhatFits) {
  const Asked asked("llama3.1-405b-lora", {8});
  SearchQuestion question = asked.question;
  const SearchResult result = search(question);
  if (result.fastest.empty()) {
    ASSERT_FALSE(result.nearest.empty());
    EXPECT_GT(static_cast<double>(result.nearest.front().bytes), result.room);
    for (const LayoutPlan& change : result.changes) EXPECT_LE(static_cast<double>(change.bytes), result.room);
    EXPECT_THAT(print_search(question, result), HasSubstr("nothing fits: the nearest is short by"));
  } else {
    EXPECT_NE(result.fastest.front().layout.weights, WeightFormat::as_is) << "bf16 does not fit eight H100";
  }
}

TEST(PlanSearch, FewGpusAreShortOfMemory) {
  const Asked asked("llama3.1-405b-lora", {1}, "h100", {"memory.weights=resident"});
  const SearchResult result = search(asked.question);
  const std::string text = print_search(asked.question, result);
  if (result.fastest.empty()) {
    EXPECT_THAT(text, HasSubstr("GiB"));
  } else {
    EXPECT_TRUE(result.fastest.front().layout.host) << "one GPU cannot hold it";
  }
}

TEST(PlanSearch, OtherGpusAreOnlyPlanned) {
  const Asked asked("llama3.1-8b-lora", {8}, "mi300x");
  const SearchResult result = search(asked.question);
  EXPECT_THAT(print_search(asked.question, result), HasSubstr("planned only: Drover does not run there"));
  EXPECT_FALSE(search_json(asked.question, result)["supported"].get<bool>());
}

TEST(PlanSearch, CountsOfGpus) {
  EXPECT_EQ(gpu_counts("8"), std::vector<int>{8});
  EXPECT_EQ(gpu_counts("8..64"), (std::vector<int>{8, 16, 32, 64}));
  EXPECT_EQ(gpu_counts("6..20"), (std::vector<int>{6, 12, 20}));
  for (const char* wrong : {"0", "-1", "8..4", "8..", "x", "8.5", "9999", ""}) {
    EXPECT_THROW(gpu_counts(wrong), Error) << wrong;
  }
}

TEST(PlanSearch, ABatchThatNoMeshDividesIsRefused) {
  const Asked asked("llama3.1-8b-lora", {11}, "h100", {"train.global_batch_size=4"});
  try {
    // tp 11 divides no heads, dp 11 no batch, pp 11 stays.
    const SearchResult result = search(asked.question);
    for (const LayoutPlan& p : result.fastest) EXPECT_EQ(p.layout.shape.pp(), 11);
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::bad_recipe);
  }
}

}  // namespace
}  // namespace drover
