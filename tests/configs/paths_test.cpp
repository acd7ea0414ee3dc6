// What stands at the start of a path for a directory, and models in the local hub cache.
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/configs/recipes.h"

namespace drover {
namespace {

using testing::HasSubstr;

struct Paths : testing::Test {
  ScratchDirectory home;

  Paths() {
    setenv("HOME", home.path().c_str(), 1);
    setenv("DROVER_TEST_SCRATCH", "/scratch/me", 1);
    for (const char* name : {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "DROVER_TEST_UNSET"}) unsetenv(name);
  }
  std::string at_home(const std::string& rest) const { return (home.path() / rest).string(); }
  static std::string output_of(const std::string& path) {
    return recipe_of("model: {path: m}\ndata: {train: t}\noutput: {dir: '" + path + "'}\n").output.dir;
  }
};

TEST_F(Paths, ExpandAtTheStart) {
  EXPECT_EQ(output_of("~/runs/a"), at_home("runs/a"));
  EXPECT_EQ(output_of("~"), home.path().string());
  EXPECT_EQ(output_of("$DROVER_TEST_SCRATCH/b"), "/scratch/me/b");
  EXPECT_EQ(output_of("${DROVER_TEST_SCRATCH}-2/b"), "/scratch/me-2/b");
  for (const std::string path : {"a~b", "runs/~", "$", "$5", "a$", "${", "cost$1/x"}) EXPECT_EQ(output_of(path), path);
  const Recipe r = recipe_of(
      "model: {path: ~/m, tokenizer: ~/t}\nlora: {init_from: ~/i}\n"
      "data: {train: [~/a.jsonl, {path: $DROVER_TEST_SCRATCH/b}], validation: ~/v}\n"
      "eval: {prompts: ~/p}\ncheckpoint: {resume: ~/c}\noutput: {dir: ~/o}\n",
      {"output.dir=~/elsewhere"});
  EXPECT_EQ(r.model.path, at_home("m"));
  EXPECT_EQ(r.model.tokenizer, at_home("t"));
  EXPECT_EQ(r.lora.init_from, at_home("i"));
  EXPECT_EQ(r.data.train[0].path, at_home("a.jsonl"));
  EXPECT_EQ(r.data.train[1].path, "/scratch/me/b");
  EXPECT_EQ(r.data.validation.files[0].path, at_home("v"));
  EXPECT_EQ(r.eval.prompts, at_home("p"));
  EXPECT_EQ(r.checkpoint.resume, at_home("c"));
  EXPECT_EQ(r.output.dir, at_home("elsewhere"));
}

TEST_F(Paths, WhatCannotBeExpandedIsRefused) {
  const auto refused = [](const std::string& path) { return refusal_of(kLeast, {"output.dir=" + path}); };
  EXPECT_THAT(refused("$DROVER_TEST_UNSET/b"), HasSubstr("output.dir: $DROVER_TEST_UNSET is not set"));
  EXPECT_THAT(refused("${DROVER_TEST_UNSET}b"), HasSubstr("$DROVER_TEST_UNSET is not set"));
  EXPECT_THAT(refused("~bob/runs"), HasSubstr("~bob is not expanded, only ~/ is"));
  EXPECT_THAT(refused("runs/$DROVER_TEST_SCRATCH"), HasSubstr("at the start of a path only"));
  unsetenv("HOME");
  EXPECT_THAT(refused("~/runs"), HasSubstr("$HOME, which is not set"));
}

TEST_F(Paths, AHubsNameIsLookedUpInTheCache) {
  const fs::path model = home / ".cache/huggingface/hub/models--meta-llama--Llama-3.1-8B";
  const auto path_of = [](const ReadRecipe& read) { return read.recipe.model.path; };
  const RecipeFile file("model: {path: meta-llama/Llama-3.1-8B}\ndata: {train: t}\noutput: {dir: o}\n");
  EXPECT_EQ(path_of(file.read()), "meta-llama/Llama-3.1-8B");  // the cache does not have it
  EXPECT_TRUE(file.read().notes.empty());
  fs::create_directories(model / "snapshots" / "aaa");
  EXPECT_EQ(path_of(file.read()), (model / "snapshots" / "aaa").string());  // the only one
  fs::create_directories(model / "snapshots" / "bbb");
  EXPECT_EQ(path_of(file.read()), "meta-llama/Llama-3.1-8B");  // nothing says which
  fs::create_directories(model / "refs");
  std::ofstream(model / "refs" / "main") << "bbb\n";
  const ReadRecipe read = file.read();
  EXPECT_EQ(path_of(read), (model / "snapshots" / "bbb").string());
  ASSERT_EQ(read.notes.size(), 1u);
  EXPECT_THAT(read.notes[0], HasSubstr("model.path meta-llama/Llama-3.1-8B is " + path_of(read)));
  setenv("HF_HOME", at_home("elsewhere").c_str(), 1);
  EXPECT_EQ(path_of(file.read()), "meta-llama/Llama-3.1-8B");
  setenv("HF_HUB_CACHE", at_home(".cache/huggingface/hub").c_str(), 1);
  EXPECT_EQ(path_of(file.read()), path_of(read));
}

}  // namespace
}  // namespace drover
