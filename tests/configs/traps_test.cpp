// Recipes that YAML would read as something else than was meant, hostile ones, foreign spellings, overrides and meshes.
#include <gtest/gtest.h>

#include <array>
#include <random>

#include "tests/configs/recipes.h"

namespace drover {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(Traps, AllProblemsAtOnceInTheFilesOrder) {
  const RecipeFile file(
      "model:\n  path: x\nlora:\n  rank: 4\n  alpha: many\ntrain:\n  deterministic: yes\nlora_r: 3\n");
  const std::string message = file.refused({"train.seed=-1"});
  const std::vector<std::string> wanted = {
      "7 problems in the recipe",
      "command line: train.seed=-1: train.seed: -1 is out of range",
      file.at(4, 3) + "lora.rank is unknown; it is MLX-LM's name for lora.r",
      file.at(5, 3) +
          "lora.alpha: expected a decimal number such as 0.05 or 2.0e-4, got \"many\"\n      alpha: many\n      ^",
      file.at(7, 3) + "train.deterministic: expected true or false, got \"yes\"",
      file.at(8, 1) + "lora_r is unknown; it is Axolotl's name for lora.r"};
  size_t from = 0;
  for (const std::string& part : wanted) {
    const size_t found = message.find(part, part.find("command line") == 0 ? 0 : from);
    ASSERT_NE(found, std::string::npos) << part << "\nin\n" << message;
    if (part.find("command line") != 0) from = found;
  }
  EXPECT_THAT(message, AllOf(HasSubstr("data.train is missing"), HasSubstr("output.dir is missing")));
}

TEST(Traps, WordsForBooleans) {
  for (const char* word : {"yes", "no", "on", "off", "True", "1", "'true'", "~"}) {
    EXPECT_THAT(refusal_of(kLeast + "log:\n  profile: " + word + "\n"), HasSubstr("expected true or false")) << word;
  }
}

TEST(Traps, Numbers) {
  EXPECT_EQ(recipe_of(kLeast + "optim: {learning_rate: 1e-4, weight_decay: 0, eps: +1e-9}\n").optim.learning_rate,
            1e-4);
  EXPECT_EQ(recipe_of(kLeast + "optim: {max_grad_norm: 0}\n").optim.max_grad_norm, 0);
  EXPECT_THAT(refusal_of(kLeast + "optim: {lora_plus_ratio: 0.5}\n"),
              HasSubstr("optim.lora_plus_ratio: 0.5 is out of range"));
  for (const char* text :
       {"010", "0x10", "0o17", "1_000", "1e3", "16.0", "'16'", "16 rows", "++1", "~", "[16]", "1:30"}) {
    EXPECT_THAT(refusal_of(kLeast + "train: {seed: " + text + "}\n"),
                HasSubstr("train.seed: expected a whole decimal number"))
        << text;
  }
  EXPECT_THAT(refusal_of(kLeast + "train: {seed: 99999999999999999999}\n"), HasSubstr("out of range"));
  for (const char* text : {"1e400", ".nan", "nan", ".inf", "inf", "0x1p3", "1_0", "010", "00.5", "+-1", "1e", "''"}) {
    EXPECT_THAT(refusal_of(kLeast + "optim: {learning_rate: " + text + "}\n"),
                HasSubstr("optim.learning_rate: expected a decimal number"))
        << text;
  }
  EXPECT_THAT(refusal_of(kLeast + "lora: {rank_pattern: {q_proj: 2.5}}\n"),
              HasSubstr("q_proj: expected a whole decimal number, 1 to 4096"));
}

TEST(Traps, NothingAsAValue) {
  EXPECT_FALSE(recipe_of(kLeast + "lora:\n  init_from:\nparallel:\n")
                   .lora.init_from);  // nothing is none; a section may be empty
  EXPECT_FALSE(recipe_of(kLeast + "eval: {prompts: none}\n").eval.prompts);
  EXPECT_EQ(recipe_of(kLeast + "eval: {prompts: 'none'}\n").eval.prompts, "none");
  EXPECT_THAT(refusal_of("model:\n  path:\ndata: {train: a}\noutput: {dir: o}\n"),
              HasSubstr("model.path: expected a text, got nothing"));
}

TEST(Traps, DuplicateKeysAtAnyDepth) {
  const RecipeFile file(kLeast + "lora:\n  r: 8\n  alpha: 1\n  r: 4\nlora:\n  dropout: 0\n");
  EXPECT_THAT(file.refused(), AllOf(HasSubstr(file.at(7, 3) + "lora.r is given twice (first on line 5)"),
                                    HasSubstr(file.at(8, 1) + "lora is given twice (first on line 4)")));
  EXPECT_THAT(refusal_of(kLeast + "lora: {rank_pattern: {a: 1, b: 2, a: 3}}\n"),
              HasSubstr("lora.rank_pattern.a is given twice"));
  EXPECT_THAT(refusal_of("model: {path: m}\noutput: {dir: o}\ndata: {train: [{path: a, path: b}]}\n"),
              HasSubstr("path is given twice"));
  EXPECT_THAT(refusal_of(kLeast, {"lora.rank_pattern={a: 1, a: 2}"}), HasSubstr("a is given twice"));
  EXPECT_EQ(recipe_of("model: {path: m}\noutput: {dir: o}\ndata: {train: [{path: a}, {path: b}]}\n").data.train.size(),
            2u);
}

TEST(Traps, AnchorsAliasesMergesAndTags) {
  const RecipeFile file("model: &m {path: m}\ndata: {train: t}\noutput:\n  <<: *m\n  dir: !!str o\n");
  EXPECT_THAT(file.refused(),
              AllOf(HasSubstr(file.at(1, 8) + "anchors (&name)"), HasSubstr(file.at(4, 3) + "merge keys (<<)"),
                    HasSubstr("aliases (*name)"), HasSubstr("tags (tag:yaml.org,2002:str)")));
  EXPECT_THAT(refusal_of(kLeast, {"lora.rank_pattern=*q_proj"}),
              HasSubstr("command line: lora.rank_pattern=*q_proj: the value cannot be read"));
  EXPECT_THAT(refusal_of(kLeast, {"lora.rank_pattern=&a [*a]"}), HasSubstr("aliases (*name)"));
}

TEST(Traps, BombsAndCycles) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 30; ++i) {
    bomb += fmt::format("a{}: &a{} [", i, i);
    for (int j = 0; j < 10; ++j) bomb += fmt::format("{}*a{}", j == 0 ? "" : ", ", i - 1);
    bomb += "]\n";
  }
  EXPECT_THAT(refusal_of(bomb), HasSubstr("aliases (*name)"));
  EXPECT_THAT(refusal_of("model: &m {path: *m}\nlora: &l\n  target_modules: [*l]\n"), HasSubstr("aliases (*name)"));
  EXPECT_THAT(refusal_of("data: &d\n  train: *d\n  validation: *d\n"), HasSubstr("aliases (*name)"));
}

TEST(Traps, DepthNodesAndBytesAreBounded) {
  for (const size_t depth : {70, 600, 100000}) {
    EXPECT_THAT(refusal_of("a: " + std::string(depth, '[')), HasSubstr("cannot be read as a recipe")) << depth;
    EXPECT_THAT(refusal_of("a: " + std::string(depth, '[') + std::string(depth, ']')),
                HasSubstr("cannot be read as a recipe"))
        << depth;
    EXPECT_THAT(refusal_of(kLeast, {"lora.r=" + std::string(depth, '{')}), HasSubstr("cannot be read")) << depth;
  }
  std::string many = kLeast + "lora:\n  target_modules: [";
  for (int i = 0; i < 1001; ++i) many += "a,";
  EXPECT_THAT(refusal_of(many + "]\n"), HasSubstr("more than 1000 values"));
  const RecipeFile large(kLeast + "#" + std::string(size_t{1} << 20, 'x') + "\n");
  EXPECT_THAT(large.refused(), HasSubstr("larger than the 1048576 bytes"));
}

TEST(Traps, TabsDocumentsAndShapes) {
  const RecipeFile tab("model:\n  path: m\n\tx: 1\n");
  EXPECT_THAT(tab.refused(), HasSubstr(tab.at(3, 1) + "a tab indents this line"));
  EXPECT_THAT(refusal_of(kLeast + "---\nlora: {r: 2}\n"), HasSubstr("a recipe is one document"));
  EXPECT_EQ(recipe_of("---\n" + kLeast).lora.r, 16);
  for (const char* text : {"", "\n\n", "# only a comment\n", "---\n"})
    EXPECT_THAT(refusal_of(text), HasSubstr("the recipe is empty")) << text;
  EXPECT_THAT(refusal_of("- a\n- b\n"), HasSubstr("a recipe is a mapping of sections"));
  EXPECT_THAT(refusal_of("just words\n"), HasSubstr("a recipe is a mapping of sections"));
  EXPECT_THAT(refusal_of(kLeast + "lora: 16\n"), HasSubstr("lora is a section: its keys stand indented below it"));
  EXPECT_THAT(refusal_of(kLeast + "nonsense_section: {}\n"), HasSubstr("nonsense_section is unknown"));
  EXPECT_THAT(refusal_of(kLeast + "[a, b]: 1\n"), HasSubstr("a key must be a name"));
  EXPECT_THAT(refusal_of(kLeast + "device: {x: 1}\n"), HasSubstr("device has no parts"));
  EXPECT_EQ(recipe_of("model: {path: m}\r\ndata:\r\n  train: t.jsonl\r\noutput: {dir: o}\r\n").data.train[0].path,
            "t.jsonl");
}

TEST(Traps, FilesThatAreNotThere) {
  const ScratchDirectory directory;
  expect_error(Fault::missing_input, {"absent.yaml"}, [&] { read_recipe(directory / "absent.yaml", {}); });
  expect_error(Fault::io, {directory.path().string()}, [&] { read_recipe(directory.path(), {}); });
}

TEST(Traps, MessagesCarryNoControlCharactersOfTheFile) {
  const std::string message = refusal_of(kLeast + "device: \"\\e[31m" + std::string(500, 'x') + "\"\n\"\\e\\a\": 1\n");
  EXPECT_EQ(message.find('\x1b'), std::string::npos);
  EXPECT_EQ(message.find('\a'), std::string::npos);
  EXPECT_EQ(message.find(std::string(200, 'x')), std::string::npos);
}

TEST(Traps, CaretStandsUnderTheKeyAfterWideText) {
  EXPECT_THAT(refusal_of(kLeast + "lora: {init_from: \"über\", q: 1}\n"),
              HasSubstr("    lora: {init_from: \"über\", q: 1}\n                              ^"));
}

TEST(Traps, NestedValuesPointInside) {
  const RecipeFile file(
      "model: {path: m}\noutput: {dir: o}\ndata:\n  train:\n    - path: a\n      wait: 2\n    - path: b\n      weight: "
      "-1\n  validation:\n    share: 2\nlora:\n  rank_pattern:\n    q_proj: x\noptim:\n  betas: [0.9, 1.5]\n");
  EXPECT_THAT(file.refused(),
              AllOf(HasSubstr(file.at(6, 7) + "data.train: wait is unknown here; allowed: path, format, weight"),
                    HasSubstr(file.at(10, 12) + "data.validation: share: 2 is out of range"),
                    HasSubstr(file.at(13, 13) + "lora.rank_pattern: q_proj: expected a whole decimal number"),
                    HasSubstr(file.at(15, 16) + "optim.betas: 1.5 is out of range")));
  for (const char* text : {"[]", "[{}]", "[{format: text}]", "''", "[{path: [a]}]", "[{path: a, weight: -1}]"}) {
    EXPECT_THAT(refusal_of(fmt::format("model: {{path: m}}\noutput: {{dir: o}}\ndata: {{train: {}}}\n", text)),
                HasSubstr("data.train: "))
        << text;
  }
  EXPECT_THAT(refusal_of(kLeast + "lora: {target_modules: []}\n"), HasSubstr("got an empty list"));
}

TEST(Traps, ForeignSpellings) {
  const std::vector<std::array<const char*, 3>> cases = {
      {"lora_rank", "LLaMA-Factory", "lora.r"},
      {"base_model", "Axolotl", "model.path"},
      {"max_seq_len", "torchtune", "data.max_length"},
      {"sequence_len", "Axolotl", "data.max_length"},
      {"num_train_epochs", "LLaMA-Factory", "train.epochs"},
      {"gradient_accumulation_steps", "torchtune", "train.global_batch_size"},
      {"sample_packing", "Axolotl", "data.packing"},
      {"output_dir", "torchtune", "output.dir"},
      {"lr_scheduler_type", "LLaMA-Factory", "optim.schedule"},
      {"fp8", "LLaMA-Factory", "train.matmul: fp8"},
      {"float8", "torchtitan", "train.matmul: fp8"},
      {"enable_fp8_training", "torchtune", "train.matmul: fp8"},
      {"loraplus_lr_ratio", "Axolotl", "optim.lora_plus_ratio"},
      {"fsdp_offload_params", "Axolotl", "memory.weights: host"},
      {"fsdp_cpu_offload", "torchtune", "memory.weights: host"},
      {"offload_param", "DeepSpeed", "memory.weights: host"},
      {"cpu_offload", "accelerate", "memory.weights: host"}};
  for (const auto& [name, program, ours] : cases) {
    for (const std::string& text : {fmt::format("{}: 1\n", name), fmt::format("lora:\n  {}: 1\n", name)}) {
      EXPECT_THAT(refusal_of(kLeast + text), AllOf(HasSubstr(std::string(name) + " is unknown; it is "),
                                                   HasSubstr(program), HasSubstr(std::string("name for ") + ours)));
    }
  }
}

TEST(Traps, ForeignWordsForProductsInFp8) {
  for (const char* word : {"float8", "e4m3", "tensorwise", "rowwise"}) {
    EXPECT_THAT(refusal_of(kLeast + "train: {matmul: " + word + "}\n"),
                HasSubstr(fmt::format("train.matmul: {} is written fp8", word)));
  }
}

TEST(Overrides, WinOverTheFile) {
  const RecipeFile file(kLeast + "lora: {r: 8}\ntrain: {epochs: 3}\noptim: {warmup_ratio: 0.1}\n");
  const ReadRecipe read = file.read({"lora.r=4", "lora.r=2", "data.train=other.jsonl", "train.max_steps=7",
                                     "optim.warmup_steps=1", "lora.target_modules=[q_proj]",
                                     "data.validation={share: 0.1}", "lora.rank_pattern={a=b: 3}", "device=cpu"});
  EXPECT_EQ(read.recipe.lora.r, 2);
  EXPECT_EQ(read.recipe.data.train, (std::vector<DataFile>{{"other.jsonl", RowFormat::automatic, 1, 1}}));
  EXPECT_EQ(read.recipe.train.max_steps, 7);
  EXPECT_FALSE(read.recipe.train.epochs);
  EXPECT_EQ(read.recipe.optim.warmup_steps, 1);
  EXPECT_FALSE(read.recipe.optim.warmup_ratio);
  EXPECT_EQ(read.recipe.lora.target_modules.names, std::vector<std::string>{"q_proj"});
  EXPECT_EQ(read.recipe.data.validation.share, 0.1);
  EXPECT_EQ(read.recipe.lora.rank_pattern, (Pattern{{"a=b", 3}}));
  EXPECT_EQ(read.origins.at("lora.r"), "command line");
  EXPECT_EQ(read.origins.count("train.epochs"), 0u);
  EXPECT_EQ(file.read({"train.max_steps=none"}).recipe.train.epochs, 3);
}

TEST(Overrides, OneOfAPairReplacesTheOtherInBothDirections) {
  const RecipeFile file(kLeast + "train: {max_steps: 9}\noptim: {warmup_steps: 4}\n");
  const Recipe r = file.read({"train.epochs=2", "optim.warmup_ratio=0.2"}).recipe;
  EXPECT_EQ(r.train.epochs, 2);
  EXPECT_FALSE(r.train.max_steps);
  EXPECT_EQ(r.optim.warmup_ratio, 0.2);
  EXPECT_FALSE(r.optim.warmup_steps);
  const Recipe kept = file.read({"train.epochs=none", "optim.warmup_ratio=none"}).recipe;
  EXPECT_EQ(kept.train.max_steps, 9);
  EXPECT_EQ(kept.optim.warmup_steps, 4);
}

TEST(Overrides, AreLocatedAsCommandLine) {
  for (const auto& [text, says] :
       std::vector<std::pair<std::string, std::string>>{{"lora.r=0", "out of range"},
                                                        {"lora.q=1", "lora.q is unknown"},
                                                        {"lora_r=1", "Axolotl"},
                                                        {"lora.r", "section.key=value"},
                                                        {"=1", "section.key=value"},
                                                        {"lora={r: 1}", "is a section"},
                                                        {"lora.r=[", "cannot be read"},
                                                        {"lora.r=", "got nothing"},
                                                        {"data.train.0.path=a", "has no parts"},
                                                        {"output.dir=", "got nothing"},
                                                        {"output.dir=~bob/a", "~bob is not expanded"}}) {
    EXPECT_THAT(refusal_of(kLeast, {text}), AllOf(HasSubstr("command line: " + text + ": "), HasSubstr(says))) << text;
  }
}

// YAML would cut a comment off, or see a list, a null, a mapping, a tag.
TEST(Overrides, ATextIsThatText) {
  for (const std::string text : {"run #3", "- x", "[v2] a", "a: b", "!x", "*a", "'q'", "true", "1e3", "{a", " b "}) {
    const Recipe r = recipe_of(kLeast, {"output.dir=" + text, "data.train=" + text, "data.validation=" + text,
                                        "model.tokenizer=" + text, "data.template_date=" + text});
    EXPECT_EQ(r.output.dir, text);
    EXPECT_EQ(r.model.tokenizer, text);
    EXPECT_EQ(r.data.template_date, text);
    ASSERT_EQ(r.data.train.size(), 1u) << text;
    EXPECT_EQ(r.data.train[0].path, text);
    ASSERT_EQ(r.data.validation.files.size(), 1u) << text;
    EXPECT_EQ(r.data.validation.files[0].path, text);
  }
  const Recipe r = recipe_of(kLeast, {"data.train=[a, {path: b, weight: 2}]", "data.validation=none",
                                      "model.tokenizer=null", "lora.target_modules=[q_proj]"});
  EXPECT_EQ(r.data.train.size(), 2u);
  EXPECT_EQ(r.data.validation, Validation());
  EXPECT_FALSE(r.model.tokenizer);
  EXPECT_EQ(r.lora.target_modules.names, std::vector<std::string>{"q_proj"});
  EXPECT_EQ(recipe_of(kLeast, {"lora.target_modules=[qv]_proj"}).lora.target_modules.pattern, "[qv]_proj");
}

TEST(Overrides, PairsExcludeEachOther) {
  EXPECT_THAT(refusal_of(kLeast + "train: {epochs: 1, max_steps: 2}\n"),
              HasSubstr("train.epochs and train.max_steps exclude each other"));
  EXPECT_THAT(refusal_of(kLeast, {"optim.warmup_steps=1", "optim.warmup_ratio=0.1"}),
              HasSubstr("optim.warmup_ratio and optim.warmup_steps exclude each other"));
}

TEST(Mesh, TheRestIsDataParallel) {
  const Recipe r = recipe_of(kLeast + "parallel: {tp: 2, pp: 2}\n");
  const MeshShape shape = check_mesh(r, 16);
  EXPECT_EQ(shape.tp(), 2);
  EXPECT_EQ(shape.pp(), 2);
  EXPECT_EQ(shape.dp(), 4);
  expect_error(Fault::bad_recipe, {"tp 2 · pp 2 · dp (the rest)", "which is 6", "a multiple of 4"},
               [&] { check_mesh(r, 6); });
  expect_error(Fault::bad_recipe, {"which is 1"}, [&] { check_mesh(r, 1); });
  expect_error(Fault::bad_recipe,
               {"train.global_batch_size 16 is not a multiple of train.micro_batch_size 1 · dp 3 = 3"},
               [&] { check_mesh(recipe_of(kLeast), 3); });
  const Recipe fixed = recipe_of(kLeast + "parallel: {tp: 2, dp: 2}\n");
  EXPECT_EQ(check_mesh(fixed, 4).dp(), 2);
  expect_error(Fault::bad_recipe, {"tp 2 · pp 1 · dp 2", "which is 8", "start 4 ranks (-n 4)"},
               [&] { check_mesh(fixed, 8); });
}

TEST(Mesh, BatchThatNoMeshFitsIsARecipeError) {
  const RecipeFile file(kLeast + "train:\n  micro_batch_size: 3\n  global_batch_size: 16\n");
  EXPECT_THAT(
      file.refused(),
      HasSubstr(file.at(6, 3) + "train.global_batch_size 16 is not a multiple of train.micro_batch_size 3 · dp 1 = 3"));
  EXPECT_THAT(refusal_of(kLeast + "parallel: {dp: 5}\n"), HasSubstr("dp 5 = 5"));
}

// Bytes of a good recipe changed at random: accepted or refused with bad_recipe, never anything else.
TEST(Traps, ChangedBytesNeverBreakTheReader) {
  const std::string good =
      "model: {path: m}\ndata:\n  train: [{path: a, weight: 1.5}, b]\n  validation: {share: 0.1}\noutput: {dir: "
      "\"o\"}\nlora:\n  r: 8\n  rank_pattern: {'q': 4}\n  target_modules: [q_proj]\n# end\n";
  const ScratchDirectory directory;
  const auto read_text_as = [&](const char* name, const std::string& text) {
    fs::remove(directory / name);  // rewriting a file in place may wait for the disk
    std::ofstream(directory / name, std::ios::binary) << text;
    return read_recipe(directory / name, {});
  };
  const std::string pieces = "\"'[]{}:,&*!|>%@`#-?<~\n\t \\=0a\x01\xff\xc3";
  std::mt19937 random(7);
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text = good;
    for (unsigned change = 0; change <= random() % 3; ++change) {
      const size_t at = random() % text.size();
      const char piece = pieces[random() % pieces.size()];
      if (random() % 2 == 0) {
        text[at] = piece;
      } else {
        text.insert(at, 1, piece);
      }
    }
    try {
      const ReadRecipe read = read_text_as("changed.yaml", text);
      ++accepted;
      ASSERT_EQ(read_text_as("resolved.yaml", resolved_recipe(read)).recipe, read.recipe) << text << "\n"
                                                                                          << resolved_recipe(read);
    } catch (const Error& error) {
      ASSERT_EQ(static_cast<int>(error.fault()), static_cast<int>(Fault::bad_recipe)) << text << "\n" << error.what();
    }
  }
  EXPECT_GT(accepted, 100);
  EXPECT_LT(accepted, 2900);
}

}  // namespace
}  // namespace drover
