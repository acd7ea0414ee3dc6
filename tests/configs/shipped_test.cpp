// The recipes of configs/recipes read without a complaint and fit the meshes that their comments name.
#include <gtest/gtest.h>

#include <fstream>
#include <tuple>

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
  EXPECT_EQ(count, 4);
}

TEST(Shipped, HerdFitsItsMachines) {
  for (const auto& [size, ranks, tp, pp] :
       std::vector<std::tuple<const char*, int, int, int>>{{"8b", 1, 1, 1}, {"70b", 8, 8, 1}, {"405b", 32, 8, 4}}) {
    const std::string name = std::string("llama3.1-") + size;
    const Recipe recipe = shipped(name + "-lora.yaml");
    EXPECT_EQ(fs::path(recipe.model.path).filename(), name);  // `drover plan` knows the shape by this name
    const MeshShape shape = check_mesh(recipe, ranks);
    EXPECT_EQ(shape.tp(), tp);
    EXPECT_EQ(shape.pp(), pp);
    EXPECT_EQ(shape.dp(), 1);
    EXPECT_EQ(recipe.data.max_length, 4096);
  }
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
