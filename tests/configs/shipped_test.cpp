// The recipes of configs/recipes read without a complaint and fit the meshes that their comments name.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/configs/recipes.h"

namespace drover {
namespace {

const fs::path kRecipes = fs::path(DROVER_SOURCE_DIR) / "configs" / "recipes";

Recipe shipped(const std::string& name) { return read_recipe(kRecipes / name, {}).recipe; }

TEST(Shipped, AllAreReadAndEveryValueHasAComment) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(kRecipes)) {
    if (entry.path().extension() != ".yaml") continue;
    ++count;
    EXPECT_NO_THROW(read_recipe(entry.path(), {})) << entry.path();
    std::ifstream in(entry.path());
    for (std::string line; std::getline(in, line);) {
      const bool is_section = line.ends_with(':');
      EXPECT_TRUE(line.empty() || is_section || line.find('#') != std::string::npos) << entry.path() << ": " << line;
    }
  }
  EXPECT_EQ(count, 8);
}

TEST(Shipped, HerdFitsItsMachines) {
  struct Machine {
    const char *recipe, *model;  // `drover plan` knows the shape by the model's name
    int ranks, tp, pp;
    WeightFormat weights = WeightFormat::as_is;
  };
  for (const auto& [name, model, ranks, tp, pp, weights] :
       std::vector<Machine>{{"8b", "8b", 1, 1, 1},
                            {"70b", "70b", 8, 8, 1},
                            {"405b", "405b", 32, 8, 4},
                            {"8b-nf4", "8b", 1, 1, 1, WeightFormat::nf4},
                            {"70b-nf4", "70b", 1, 1, 1, WeightFormat::nf4},
                            {"405b-fp8", "405b-fp8", 8, 8, 1}}) {
    const Recipe recipe = shipped(fmt::format("llama3.1-{}-lora.yaml", name));
    EXPECT_EQ(fs::path(recipe.model.path).filename(), fmt::format("llama3.1-{}", model));
    EXPECT_EQ(recipe.model.weights, weights);
    const MeshShape shape = check_mesh(recipe, ranks);
    EXPECT_EQ(shape.tp(), tp);
    EXPECT_EQ(shape.pp(), pp);
    EXPECT_EQ(shape.dp(), 1);
    EXPECT_EQ(recipe.data.max_length, 4096);
  }
}

TEST(Shipped, StreamedTakesOneNode) {
  const Recipe recipe = shipped("llama3.1-405b-lora-streamed.yaml");
  EXPECT_EQ(recipe.memory.weights, WeightHome::host);
  EXPECT_EQ(recipe.model.weights, WeightFormat::as_is);
  EXPECT_EQ(check_mesh(recipe, 8).tp(), 8);
  EXPECT_EQ(recipe.data.max_length, 4096);
}

TEST(Shipped, HandbookRunsOnOneAndTwoRanks) {
  const Recipe recipe = shipped("smollm2-135m-handbook.yaml");
  EXPECT_EQ(check_mesh(recipe, 1).dp(), 1);
  EXPECT_EQ(check_mesh(recipe, 2).dp(), 2);
  EXPECT_FALSE(recipe.data.packing);
  for (const std::string& path : {recipe.data.train[0].path, recipe.data.validation.files[0].path}) {
    EXPECT_TRUE(fs::exists(fs::path(DROVER_SOURCE_DIR) / path)) << path;
  }
}

}  // namespace
}  // namespace drover
