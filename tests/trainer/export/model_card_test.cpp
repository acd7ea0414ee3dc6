// The page of an adapter: what it claims of its base's licence, and when it may be replaced.
#include "trainer/export/model_card.h"

#include <yaml-cpp/yaml.h>

#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

using std::string;

TEST(BaseLicence, IsWhatItsTextsSay) {
  EXPECT_EQ(licence_in_text("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\nLlama 3.1 Version")->version, "3.1");
  EXPECT_EQ(licence_in_text("META LLAMA 3 COMMUNITY LICENSE AGREEMENT")->version, "3");
  EXPECT_EQ(licence_in_text("# Llama 3.2 Acceptable Use Policy")->version, "3.2");
  EXPECT_FALSE(licence_in_text("Apache License, Version 2.0"));
  EXPECT_FALSE(licence_in_text("LLAMA 2 COMMUNITY LICENSE AGREEMENT"));  // it asks for other words
  EXPECT_EQ(licence_in_page("---\nlanguage: en\nlicense: llama3.1\n---\n")->hub_word(), "llama3.1");
  EXPECT_EQ(licence_in_page("---\nlicense: other\nlicense_name: llama3\n---\n")->sentence(), "Built with Meta Llama 3");
  EXPECT_FALSE(
      licence_in_page("---\nlicense: apache-2.0\n---\nbetter than those under the Llama 3.1 Community License"));
  EXPECT_FALSE(licence_in_page("license: llama3.1\n"));
}

ModelConfig other_shape() {
  ModelConfig config = *known_model("llama3.1-8b");
  config.layers = 16;
  return config;
}

TEST(BaseLicence, IsKnownByFilesNameOrShapeAndElseNot) {
  ScratchDirectory dir;
  const auto base = [&](const string& name, const string& file, const string& text) {
    fs::create_directories(dir / name);
    write_text(dir / name / file, text);
    return dir / name;
  };
  EXPECT_EQ(licence_of(base("a", "LICENSE.txt", "Llama 3.3 Community License"), other_shape())->version, "3.3");
  EXPECT_EQ(licence_of(base("b", "USE_POLICY.md", "Llama 3.1 Acceptable Use Policy"), other_shape())->version, "3.1");
  EXPECT_EQ(licence_of(base("c", "README.md", "---\nlicense: llama3.2\n---\n"), other_shape())->version, "3.2");
  const string named = R"({"_name_or_path": "meta-llama/Meta-Llama-3.1-8B-Instruct"})";
  EXPECT_EQ(licence_of(base("d", "config.json", named), other_shape())->version, "3.1");
  EXPECT_EQ(name_of_base(dir / "d"), "meta-llama/Meta-Llama-3.1-8B-Instruct");
  const fs::path cached = base("models--meta-llama--Llama-3.2-1B/snapshots/4e20", "x", "");
  EXPECT_EQ(name_of_base(cached), "meta-llama/Llama-3.2-1B");
  EXPECT_EQ(licence_of(cached, other_shape())->version, "3.2");
  for (const char* original : {"llama3.1-8b", "llama3.1-405b"}) {
    ModelConfig config = *known_model(original);
    config.eos = {1};
    EXPECT_EQ(licence_of(base("e", "x", ""), config)->version, "3.1");
  }
  EXPECT_FALSE(licence_of(base("llama-like", "LICENSE", "Apache License"), other_shape()));
  EXPECT_FALSE(licence_of(dir / "llama-like", *known_model("smollm2-135m")));
  EXPECT_EQ(name_of_base(dir / "llama-like/"), "llama-like");
}

class Card : public testing::Test {
 protected:
  Card() {
    read_.recipe.model.path = dir_ / "base";
    read_.recipe.data.train = {{"/home/somebody/secret/rows.jsonl", RowFormat::automatic, 1, 2}};
    read_.recipe.output.dir = "/home/somebody/runs/first";
    fs::create_directories(dir_ / "base");
    state_.step = 12;
    state_.identity = {{"model", "11aa"}, {"data", "22bb"}};
    comparison_.rows = "validation", comparison_.tokens = 7, comparison_.logprob = -1.5, comparison_.of_run = true;
    comparison_.reloaded = Compared{.logprob = -1.5};
    comparison_.why["served"] = "no room";
  }
  string card() { return model_card({read_, *known_model("smollm2-135m"), state_, {2.25, 1.75}, comparison_}); }

  ScratchDirectory dir_;
  ReadRecipe read_;
  CheckpointState state_;
  Comparison comparison_;
};

TEST_F(Card, SaysWhatItIsMadeOf) {
  const string text = card();
  for (const char* word :
       {"base_model: \"base\"\n", "library_name: peft\n", "- lora\n", "`11aa`", "`22bb`", "`rows.jsonl` × 2",
        "2.2500, 1.7500", "| steps done | 12 |", "Not compared, served: no room.", "-1.500000", "dir: first\n"})
    EXPECT_NE(text.find(word), string::npos) << word << "\n" << text;
  EXPECT_EQ(text.find("somebody"), string::npos);
  EXPECT_EQ(text.find("Built with"), string::npos);
  EXPECT_EQ(text.find("\nlicense:"), string::npos);
  EXPECT_LT(text.size(), 6000u);
  EXPECT_EQ(text, card());
  EXPECT_NE(text.find("vllm serve base"), string::npos);
  state_.adapter.target_modules = AdapterConfig::Names{"lm_head"};
  EXPECT_EQ(card().find("vllm serve"), string::npos);
  write_text(dir_ / "base" / "LICENSE", "Llama 3.1 Community License Agreement");
  EXPECT_NE(card().find("**Built with Llama**"), string::npos);
  EXPECT_NE(card().find("\nlicense: llama3.1\n"), string::npos);
}

TEST_F(Card, HasFrontMatterAndARecipeInYaml) {
  read_.recipe.model.path = dir_ / "a \"base\": #1";
  const string text = card();
  const size_t end = text.find("\n---\n", 3), block = text.find("```yaml\n");
  const YAML::Node front = YAML::Load(text.substr(4, end - 3));
  EXPECT_EQ(front["base_model"].as<string>(), "a \"base\": #1");
  EXPECT_EQ(front["library_name"].as<string>(), "peft");
  EXPECT_EQ(front["tags"][0].as<string>(), "lora");
  const YAML::Node recipe = YAML::Load(text.substr(block + 8, text.find("```\n", block + 8) - block - 8));
  EXPECT_EQ(recipe["data"]["train"][0]["path"].as<string>(), "rows.jsonl");
}

TEST_F(Card, IsKnownAgainUntilSomebodyChangesIt) {
  const string ours = card();
  EXPECT_TRUE(is_own_card(ours));
  EXPECT_FALSE(is_own_card("my words\n" + ours));
  EXPECT_FALSE(is_own_card(ours + "my words\n"));
  EXPECT_FALSE(is_own_card(""));
  fs::create_directories(dir_ / "to");
  EXPECT_FALSE(keep_page(dir_ / "base", dir_ / "to"));
  write_text(dir_ / "base" / "README.md", ours);
  EXPECT_FALSE(keep_page(dir_ / "base", dir_ / "to"));
  EXPECT_FALSE(fs::exists(dir_ / "to" / "README.md"));
  write_text(dir_ / "base" / "README.md", "mine");
  EXPECT_TRUE(keep_page(dir_ / "base", dir_ / "to"));
  write_pages(dir_ / "to", true, {read_, *known_model("smollm2-135m"), state_, {}, comparison_});
  EXPECT_EQ(read_text(dir_ / "to" / "README.md"), "mine");
  EXPECT_TRUE(fs::exists(dir_ / "to" / "comparison.json"));
}

}  // namespace
}  // namespace drover
