// Every key of the schema: read, printed and read back; misspelt, of a wrong type and out of range.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tests/configs/recipes.h"

namespace drover {
namespace {

using testing::HasSubstr;

// Of pairs of keys that exclude each other the one that is not in kEverything.
const std::set<std::string> kOtherOfPair = {"train.epochs", "optim.warmup_ratio"};

TEST(Keys, EverythingHasEveryKey) {
  const ReadRecipe read = RecipeFile(kEverything).read();
  for (const Key& key : all_keys())
    EXPECT_EQ(read.origins.count(key.full()), 1u - kOtherOfPair.count(key.full())) << key.full();
}

TEST(Keys, AllAreRead) {
  const Recipe r = recipe_of(kEverything);
  EXPECT_EQ(r.model.path, "models/m");
  EXPECT_EQ(r.model.tokenizer, "models/t: #2");
  EXPECT_EQ(r.model.weights, WeightFormat::nf4);
  EXPECT_EQ(r.lora.r, 8);
  EXPECT_EQ(r.lora.alpha, 12.5);
  EXPECT_EQ(r.lora.dropout, 0.05);
  EXPECT_EQ(r.lora.target_modules, (TargetModules{{"q_proj", "v_proj"}, ""}));
  EXPECT_TRUE(r.lora.use_rslora);
  EXPECT_EQ(r.lora.rank_pattern, (Pattern{{"layers\\.0\\..*q_proj", 32}, {"v_proj", 4}}));
  EXPECT_EQ(r.lora.alpha_pattern, (Pattern{{"a\"b", 1e-4}}));
  EXPECT_EQ(r.data.train,
            (std::vector<DataFile>{{"a.jsonl", RowFormat::text, 0.5, 0.25}, {"b.jsonl", RowFormat::automatic, 1, 1}}));
  EXPECT_EQ(r.data.validation, (Validation{{}, 0.05}));
  EXPECT_EQ(r.data.fields_of_rows, (FieldNames{{"text", "my: body"}, {"role", "who"}}));
  EXPECT_TRUE(r.data.special);
  EXPECT_EQ(r.data.template_date, "1 Jan 2025");
  EXPECT_FALSE(r.data.packing);
  EXPECT_EQ(r.train.matmul, MatmulNumbers::fp8);
  EXPECT_EQ(r.train.max_steps, 1000);
  EXPECT_FALSE(r.train.epochs);
  EXPECT_EQ(r.optim.learning_rate, 1e-4);
  EXPECT_EQ(r.optim.betas, (std::vector<double>{0.8, 0.95}));
  EXPECT_EQ(r.optim.warmup_steps, 10);
  EXPECT_EQ(r.optim.lora_plus_ratio, 16);
  EXPECT_EQ(r.optim.min_lr_ratio, 0.1);
  EXPECT_EQ(r.eval.stop_after, 3);
  EXPECT_TRUE(r.checkpoint.keep_best);
  EXPECT_FALSE(r.optim.warmup_ratio);
  EXPECT_EQ(r.parallel.dp, 8);
  EXPECT_EQ(r.memory.weights, WeightHome::host);
  EXPECT_EQ(r.checkpoint.resume, "runs/x/step-5");
  EXPECT_TRUE(r.log.tensorboard);
  EXPECT_EQ(r.log.trace, (TracedSteps{3, 5, {}}));
  EXPECT_EQ(r.output.adapter_dtype, Precision::bf16);
}

TEST(Keys, DefaultsAreTheDocumentedOnes) {
  const Recipe r = recipe_of(kLeast);
  EXPECT_EQ(r.device, DeviceChoice::automatic);
  EXPECT_EQ(r.lora.r, 16);
  EXPECT_EQ(r.lora.alpha, 32);
  EXPECT_EQ(r.lora.dropout, 0);
  EXPECT_EQ(r.lora.target_modules, (TargetModules{{}, "all-linear"}));
  EXPECT_EQ(r.data.max_length, 2048);
  EXPECT_EQ(r.data.template_date, "26 Jul 2024");
  EXPECT_EQ(r.data.validation, Validation{});
  EXPECT_EQ(r.data.train, (std::vector<DataFile>{{"t.jsonl", RowFormat::automatic, 1, 1}}));
  EXPECT_TRUE(r.data.fields_of_rows.empty());
  EXPECT_FALSE(r.data.special);
  EXPECT_TRUE(r.data.packing && r.data.shuffle);
  EXPECT_EQ(r.train.dtype, Precision::bf16);
  EXPECT_EQ(r.train.micro_batch_size, 1);
  EXPECT_EQ(r.train.global_batch_size, 16);
  EXPECT_EQ(r.train.epochs, 1);
  EXPECT_EQ(r.train.seed, 42);
  EXPECT_EQ(r.optim.learning_rate, 2e-4);
  EXPECT_EQ(r.optim.schedule, LearningRateShape::cosine);
  EXPECT_EQ(r.optim.warmup_ratio, 0.03);
  EXPECT_EQ(r.optim.max_grad_norm, 1);
  EXPECT_EQ(r.optim.lora_plus_ratio, 1);
  EXPECT_FALSE(r.parallel.dp);
  EXPECT_EQ(r.memory.weights, WeightHome::resident);
  EXPECT_EQ(r.checkpoint.keep, 2);
  EXPECT_EQ(r.checkpoint.resume, "auto");
  EXPECT_FALSE(r.log.tensorboard);
  EXPECT_TRUE(r.log.trace.empty());
  EXPECT_EQ(r.output.adapter_dtype, Precision::fp32);
}

TEST(Keys, ResolvedRecipeReadsBackToTheSame) {
  for (const std::string& text :
       {kEverything, kLeast, kLeast + "lora: {target_modules: '.*\\.(q|v)_proj', init_from: a}\n"}) {
    const ReadRecipe first =
        RecipeFile(text).read({"train.seed=9", "eval.prompts=\"none\"", "data.template_date=\"tab\\there\\nline\""});
    const std::string resolved = resolved_recipe(first);
    const ReadRecipe again = RecipeFile(resolved).read();
    EXPECT_EQ(first.recipe, again.recipe) << resolved;
    EXPECT_EQ(identity(first.recipe), identity(again.recipe));
  }
}

TEST(Keys, ResolvedRecipeSaysWhereEachValueCameFrom) {
  const RecipeFile file(kEverything);
  const std::string text = resolved_recipe(file.read({"lora.alpha=64"}));
  EXPECT_THAT(text, HasSubstr("  r: 8  # " + file.path().string() + ":8\n"));
  EXPECT_THAT(text, HasSubstr("  alpha: 64  # command line\n"));
  EXPECT_THAT(text, HasSubstr("  warmup_ratio: none  # default\n"));
  for (const Key& key : all_keys()) EXPECT_THAT(text, HasSubstr(key.name + ": ")) << key.full();
}

// The recipe's default rank is not the adapter's: a resolved recipe that stated it would contradict the adapter when it
// is read again.
TEST(Keys, WhatTheFirstAdapterSuppliesIsNotStatedAsDefault) {
  const RecipeFile file(kLeast + "lora: {init_from: a, alpha: 64}\n");
  const RecipeFile resolved(resolved_recipe(file.read()));
  const ReadRecipe again = resolved.read();
  EXPECT_EQ(again.origins.count("lora.r"), 0u);
  EXPECT_EQ(again.origins.count("lora.target_modules"), 0u);
  EXPECT_EQ(again.origins.count("lora.alpha"), 1u);
  EXPECT_EQ(again.origins.count("lora.dropout"), 1u);
}

TEST(Keys, MisspeltGivesPlaceAndNearest) {
  for (const Key& key : all_keys()) {
    const RecipeFile file(key.recipe_with(key.name + "x", "1"));
    const std::string message = file.refused();
    EXPECT_THAT(message, HasSubstr(file.at(key.line(), key.column()) + key.full() + "x is unknown; did you mean " +
                                   key.full() + "?"));
    EXPECT_THAT(message, HasSubstr("x: 1\n" + std::string(4 + static_cast<size_t>(key.column()) - 1, ' ') + "^"))
        << key.full();
  }
}

TEST(Keys, WrongTypeGivesPlaceAndWhatIsAllowed) {
  for (const Key& key : all_keys()) {
    const RecipeFile file(key.recipe_with(key.name, key.wrong));
    const std::string message = file.refused();
    const bool points_inside =
        message.find(file.at(key.line(), key.column() + static_cast<int>(key.name.size()) + 3)) != std::string::npos;
    EXPECT_TRUE(points_inside ||
                message.find(file.at(key.line(), key.column()) + key.full() + ": ") != std::string::npos)
        << key.full() << "\n"
        << message;
    EXPECT_THAT(message, testing::AnyOf(HasSubstr("expected "), HasSubstr("is not allowed; allowed: "),
                                        HasSubstr("must be a text")))
        << key.full();
  }
}

TEST(Keys, OutOfRangeGivesPlaceAndRange) {
  int checked = 0;
  for (const Key& key : all_keys()) {
    if (!key.is_number) continue;
    for (const double value : {key.info.least - 1, key.info.most * 4}) {
      ASSERT_TRUE(std::isfinite(value)) << key.full() << " has no limit";
      const std::string text = fmt::format("{:.0f}", value);
      EXPECT_THAT(refusal_of(key.recipe_with(key.name, text)),
                  HasSubstr(fmt::format("is out of range; allowed: {} to {}", key.info.least, key.info.most)))
          << key.full() << " " << text;
      ++checked;
    }
  }
  EXPECT_GE(checked, 40);
}

TEST(Keys, UnknownChoiceNamesTheChoices) {
  int checked = 0;
  for (const Key& key : all_keys()) {
    if (key.info.allowed.empty() || key.info.path) continue;
    const std::string message = refusal_of(key.recipe_with(key.name, "sideways"));
    for (const char* allowed : key.info.allowed) EXPECT_THAT(message, HasSubstr(allowed)) << key.full();
    for (const char* later : key.info.later) {
      EXPECT_THAT(refusal_of(key.recipe_with(key.name, later)),
                  HasSubstr(std::string(later) + " is not built yet; allowed now: "))
          << key.full();
    }
    ++checked;
  }
  EXPECT_GE(checked, 9);
  EXPECT_THAT(refusal_of("data: {train: [{path: a, format: parquet}]}\n"),
              HasSubstr("format: \"parquet\" is not allowed; allowed: auto, messages, text, sharegpt, alpaca"));
}

TEST(Keys, EveryWordOfAChoiceIsReadAndPrinted) {
  for (const Key& key : all_keys()) {
    for (const std::string word : key.info.allowed) {
      const std::string resolved = resolved_recipe(RecipeFile(key.recipe_with(key.name, word)).read());
      const std::string printed = word == "none" ? "\"none\"" : word;
      EXPECT_THAT(resolved, HasSubstr(key.name + ": " + printed + "  # ")) << key.full();
    }
  }
}

TEST(Keys, SourcesAndFieldNamesAreChecked) {
  const auto refuses = [](const std::string& override_text, const std::string& words) {
    EXPECT_THAT(refusal_of(kLeast, {override_text}), HasSubstr(words)) << override_text;
  };
  refuses("data.train=[{path: a, repeat: 0}]", "repeat: 0 is out of range; allowed: 0.01 to 100");
  refuses("data.train=[{path: a, repeat: 101}]", "allowed: 0.01 to 100");
  refuses("data.train=[{path: a, weight: 11}]", "weight: 11 is out of range; allowed: 0 to 10");
  refuses("data.train=[{path: a, times: 2}]", "times is unknown here; allowed: path, format, weight, repeat");
  refuses("data.validation=[{path: a, repeat: 2}]", "data.validation: repeat is of epochs");
  refuses("data.fields={txet: body}", "txet is no field of ours; allowed: messages, conversations, system");
  refuses("data.fields={text: []}", "text: expected a text");
  refuses("data.fields={text: a, prompt: a}", "a is text already");
  EXPECT_EQ(recipe_of(kLeast, {"data.train=[{path: a, weight: 0}]"}).data.train.at(0).weight, 0);
}

TEST(Keys, TracedStepsAreARangeOrAList) {
  const TracedSteps range = recipe_of(kLeast, {"log.trace=10..12"}).log.trace;
  EXPECT_TRUE(range.contains(10) && range.contains(12));
  EXPECT_FALSE(range.contains(9) || range.contains(13));
  const TracedSteps list = recipe_of(kLeast, {"log.trace=[1, 100]"}).log.trace;
  EXPECT_TRUE(list.contains(1) && list.contains(100));
  EXPECT_FALSE(list.contains(2));
  EXPECT_FALSE(recipe_of(kLeast, {"log.trace=none"}).log.trace.contains(1));
  for (const char* text : {"10..12", "[1, 100]", "none"}) {
    const ReadRecipe read = RecipeFile(kLeast).read({std::string("log.trace=") + text});
    EXPECT_THAT(resolved_recipe(read), HasSubstr(fmt::format("  trace: {}  # command line\n", text)));
  }
  for (const char* wrong :
       {"3", "3..", "..3", "3...5", "3..5..7", "a..b", "0..3", "-1..3", "\"3..5\"", "all", "[]", "{a: 1}"}) {
    EXPECT_THAT(
        refusal_of(kLeast, {std::string("log.trace=") + wrong}),
        HasSubstr("log.trace: expected none, a range such as 10..12, or a list of steps such as [1, 100]; got "))
        << wrong;
  }
  EXPECT_THAT(refusal_of(kLeast, {"log.trace=5..3"}), HasSubstr("; 5..3 ends before it begins"));
  EXPECT_THAT(refusal_of(kLeast, {"log.trace=[2, 0]"}),
              HasSubstr("log.trace: 0 is out of range; allowed: 1 to 1000000000"));
}

TEST(Keys, HelpListsEveryKey) {
  const std::string help = recipe_help();
  for (const Key& key : all_keys()) {
    EXPECT_THAT(help, HasSubstr("  " + key.full() + " "));
    EXPECT_THAT(help, HasSubstr(key.info.help)) << key.full();
  }
  EXPECT_THAT(help, HasSubstr("auto | messages | text | sharegpt | alpaca | prompt_completion | ids"));
  EXPECT_THAT(help, HasSubstr("mapping of names"));
  EXPECT_THAT(help, HasSubstr("not built yet: full, dora"));
  EXPECT_THAT(help, HasSubstr("Relative paths start at the current directory"));
}

TEST(Keys, IdentityHoldsWhatAResumedRunMustShare) {
  const Recipe base = recipe_of(kLeast);
  const auto changes = [&](const std::string& override_text) {
    return identity(recipe_of(kLeast, {override_text})) != identity(base);
  };
  std::set<std::string> changed;
  for (const char* text : {"model.weights=nf4",
                           "lora.r=8",
                           "lora.alpha=1",
                           "lora.dropout=0.1",
                           "lora.target_modules=[q_proj]",
                           "lora.use_rslora=true",
                           "lora.rank_pattern={a: 1}",
                           "lora.alpha_pattern={a: 1}",
                           "lora.init_from=a",
                           "train.seed=1",
                           "train.global_batch_size=32",
                           "train.dtype=fp32",
                           "train.matmul=fp8",
                           "train.deterministic=true",
                           "optim.learning_rate=1e-3",
                           "optim.schedule=linear",
                           "optim.warmup_ratio=0.1",
                           "optim.warmup_steps=3",
                           "optim.betas=[0.9, 0.99]",
                           "optim.eps=1e-6",
                           "optim.weight_decay=0.1",
                           "optim.max_grad_norm=2",
                           "optim.lora_plus_ratio=4",
                           "optim.min_lr_ratio=0.1",
                           "data.max_length=100",
                           "data.packing=false",
                           "data.shuffle=false",
                           "data.train_on=all",
                           "data.template=chatml",
                           "data.template_date=1 Jan 2025",
                           "data.format=text",
                           "data.fields={text: body}",
                           "data.special=true",
                           "data.train=[{path: t.jsonl, repeat: 2}]"}) {
    EXPECT_TRUE(changes(text)) << text;
    changed.insert(std::string(text).substr(0, std::string(text).find('=')));
  }
  for (const Key& key : all_keys()) {
    const bool stands_still = !key.info.identity || key.info.allowed.size() == 1;  // it has one word only
    EXPECT_TRUE(stands_still || changed.count(key.full()) != 0) << key.full() << " is in no line above";
  }
  for (const char* text :
       {"train.micro_batch_size=2", "train.max_steps=9", "parallel.tp=2", "parallel.pp=2", "parallel.dp=2",
        "log.every_steps=5", "eval.every_steps=5", "checkpoint.every_steps=5", "checkpoint.resume=never",
        "output.dir=elsewhere", "memory.activation_checkpointing=full", "memory.weights=host"}) {
    EXPECT_FALSE(changes(text)) << text;
  }
}

}  // namespace
}  // namespace drover
