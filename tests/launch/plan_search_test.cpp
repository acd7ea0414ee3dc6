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

// The smaller a GPU's memory, the more is given up, and never more than its memory is taken.
TEST(PlanSearch, NothingIsPlannedBeyondTheMemory) {
  Asked asked("llama3.1-8b-lora", {1});
  double before = 1e30;
  for (const double memory : {80e9, 40e9, 24e9, 16e9, 13e9}) {
    Machine smaller = asked.question.machine;
    smaller.memory_bytes = memory;
    const SearchQuestion question{asked.read, asked.model, smaller, {1}};
    const SearchResult result = search(question);
    ASSERT_FALSE(result.fastest.empty()) << memory;
    for (const LayoutPlan& p : result.fastest) {
      EXPECT_LE(static_cast<double>(p.bytes), memory);
      EXPECT_LE(static_cast<double>(p.host_bytes), smaller.host_memory_bytes);
    }
    EXPECT_LE(result.fastest.front().tokens_per_second, before * 1.0001);
    before = result.fastest.front().tokens_per_second;
  }
}

TEST(PlanSearch, WhatDoesNotFitSaysByHowMuchAndWhatFits) {
  const Asked asked("llama3.1-8b-lora", {1});
  Machine small = asked.question.machine;
  small.memory_bytes = 9e9, small.host_memory_bytes = 8e9;
  const SearchQuestion question{asked.read, asked.model, small, {1}};
  const SearchResult result = search(question);
  EXPECT_TRUE(result.fastest.empty());
  ASSERT_EQ(result.nearest.size(), 1);
  EXPECT_GT(static_cast<double>(result.nearest.front().bytes), small.memory_bytes);
  const std::string text = print_search(question, result);
  EXPECT_THAT(text, HasSubstr("nothing fits: the nearest is short by"));
  ASSERT_FALSE(result.changes.empty());
  for (const LayoutPlan& change : result.changes) {
    EXPECT_LE(static_cast<double>(change.bytes), small.memory_bytes);
    EXPECT_THAT(text, HasSubstr(change.layout.text()));
  }
}

TEST(PlanSearch, NothingFitsAndTheLastNumberOfGpusHasNoMesh) {
  const Asked asked("llama3.1-405b-lora", {9, 17}, "h100", {"train.global_batch_size=18"});
  Machine small = asked.question.machine;
  small.memory_bytes = 9e9, small.host_memory_bytes = 2e9;
  const SearchQuestion question{asked.read, asked.model, small, {9, 17}};
  const SearchResult result = search(question);
  EXPECT_TRUE(result.fastest.empty());
  EXPECT_EQ(result.nearest.size(), 1);
}

TEST(PlanSearch, FourHundredBillionOnTwoGpusStreams) {
  const Asked asked("llama3.1-405b-lora", {2});
  const SearchResult result = search(asked.question);
  ASSERT_FALSE(result.fastest.empty());
  for (const LayoutPlan& p : result.fastest) {
    EXPECT_TRUE(p.layout.host);
    EXPECT_GT(p.host_bytes, 790e9);
  }
  EXPECT_THAT(print_search(asked.question, result), HasSubstr("a host holds"));
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

// Seventeen divides neither the heads nor the batch, and there are at most sixteen stages.
TEST(PlanSearch, GpusThatNoMeshDividesAreRefused) {
  const Asked asked("llama3.1-8b-lora", {17}, "h100", {"train.global_batch_size=16"});
  try {
    search(asked.question);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::bad_recipe);
    EXPECT_THAT(e.what(), HasSubstr("no mesh of 17 GPUs"));
  }
}

}  // namespace
}  // namespace drover
