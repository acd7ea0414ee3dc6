// The command line: verbs and their flags.
#include <CLI/CLI.hpp>
#include <iostream>

#include "configs/recipe.h"
#include "kernels/base/log.h"
#include "launch/ranks_doctor.h"
#include "launch/verbs.h"

namespace {

using namespace drover;

// `train RECIPE [section.key=value …]`: the first word is the recipe, the rest are overrides.
void recipe_options(CLI::App* verb, std::vector<std::string>& words, RecipeArguments& arguments) {
  verb->add_option("recipe", words, "RECIPE.yaml, then any section.key=value")->required();
  verb->add_flag("--json", arguments.json, "print the result as JSON");
}

void take_words(const std::vector<std::string>& words, RecipeArguments& arguments) {
  if (words.empty()) return;
  arguments.recipe = words.front();
  arguments.overrides.assign(words.begin() + 1, words.end());
}

void model_options(CLI::App* verb, ModelArguments& arguments) {
  verb->add_option("--model", arguments.model, "the model's directory");
  verb->add_option("--adapter", arguments.adapter, "a PEFT adapter's directory");
}

// CLI11's own message for this spells out the largest double.
CLI::Validator above_zero(const std::string& advice = "") {
  return CLI::Validator(
      [advice](std::string& text) {
        double value = 0;
        return CLI::detail::lexical_cast(text, value) && value > 0 ? std::string() : text + " is not a number above 0" + advice;
      },
      "> 0");
}

// CLI11 would read -1 as 2^64-1.
CLI::Validator not_negative() {
  return CLI::Validator([](std::string& text) { return text.find('-') == std::string::npos ? std::string() : text + " is not a number from 0 on"; }, ">= 0");
}

std::string verbs_of(const CLI::App& app) {
  std::string names;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) names += (names.empty() ? "" : ", ") + verb->get_name();
  return names;
}

// Run before the initialisers of all shared libraries.
[[gnu::used, gnu::section(".preinit_array")]] void (*const first_of_all)(int, char**, char**) = [](int, char**, char**) { drover::prepare_process(); };

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Drover fine-tunes Llama models with low-rank adapters, from YAML recipes, under mpirun."};
  app.require_subcommand(0, 1);
  bool version = false;
  app.add_flag("--version", version, "version, commit, backends and libraries");

  std::vector<std::string> words;
  bool dry_run = false, help_keys = false;
  RecipeArguments recipe;
  auto* train_verb = app.add_subcommand("train", "train; goes on by itself where output.dir holds a checkpoint of the same run");
  train_verb->add_option("recipe", words, "RECIPE.yaml, then any section.key=value");
  train_verb->add_flag("--dry-run", dry_run, "plan only");
  train_verb->add_flag("--help-keys", help_keys, "list every key of a recipe");
  train_verb->add_flag("--json", recipe.json, "with --dry-run: as JSON (a run's results are lines of output.dir/metrics.jsonl)");
  train_verb->footer("example: launch/run -n 2 drover train configs/recipes/smollm2-135m-handbook.yaml optim.learning_rate=1e-3");

  std::optional<int> ranks;
  auto* plan_verb = app.add_subcommand("plan", "what every rank will hold, and the schedule; no weights, no MPI");
  recipe_options(plan_verb, words, recipe);
  plan_verb->add_option("--ranks", ranks, "number of ranks (default: tp·pp·dp of the recipe)")->check(above_zero());
  plan_verb->footer("example: drover plan configs/recipes/llama3.1-405b-lora.yaml --ranks 32");

  auto* prepare_verb = app.add_subcommand("prepare", "tokenise and pack the data, and show a sample with its trained tokens marked");
  recipe_options(prepare_verb, words, recipe);
  prepare_verb->footer("example: drover prepare recipe.yaml");

  EvalArguments eval;
  auto* eval_verb = app.add_subcommand("eval", "loss and perplexity of a recipe's validation data, or of --data under --model");
  eval_verb->add_option("recipe", words, "RECIPE.yaml (not with --model), then any section.key=value");
  model_options(eval_verb, eval.model);
  eval_verb->add_option("--data", eval.data, "JSONL rows of messages or text");
  eval_verb->add_option("--per-token", eval.per_token, "write ids and log-probabilities of every document to this file");
  eval_verb->add_flag("--json", eval.recipe.json, "print the result as JSON");
  eval_verb->footer("example: drover eval --model models/smollm2 --adapter runs/handbook/adapter --data data/sample/handbook.validation.jsonl");

  GenerateArguments generate;
  auto* generate_verb = app.add_subcommand("generate", "answer a prompt, or a file of prompts");
  model_options(generate_verb, generate.model);
  generate_verb->add_option("overrides", generate.overrides, "section.key=value, for example train.dtype=bf16 (default: fp32 where the model takes less than half of the free memory)");
  generate_verb->add_option("--prompt", generate.prompt, "the prompt");
  generate_verb->add_option("--prompts", generate.prompts, "JSONL rows of {\"prompt\"} or {\"messages\"}; one answer a line, in order");
  generate_verb->add_flag("--raw", generate.raw, "no chat template");
  auto* greedy_flag = generate_verb->add_flag("--greedy", generate.greedy, "always the most likely token; so it is without --temperature and --top-p too");
  generate_verb->add_option("--temperature", generate.temperature, "above 0, at most 100")->check(above_zero("; for 0, use --greedy"))->check(CLI::Range(1e-6, 100.0))->excludes(greedy_flag);
  generate_verb->add_option("--top-p", generate.top_p, "in (0, 1]")->check(CLI::Range(1e-6, 1.0))->excludes(greedy_flag);
  generate_verb->add_option("--seed", generate.seed, "of the sampling")->check(not_negative())->excludes(greedy_flag);
  generate_verb->add_option("--max-tokens", generate.max_tokens, "longest answer")->check(above_zero());
  generate_verb->add_option("--out", generate.out, "with --prompts: write the answers to this file instead of stdout");
  generate_verb->add_flag("--resume", generate.resume, "with --out: keep the answers that are there and go on after them");
  generate_verb->add_flag("--json", generate.json, "with --prompt: print ids and finish_reason too");
  generate_verb->footer("example: drover generate --model models/smollm2 --prompt \"What is the capital of France?\" --greedy");

  TokenizeArguments tokenize;
  bool json = false;
  auto* tokenize_verb = app.add_subcommand("tokenize", "text to ids, as JSON");
  tokenize_verb->add_option("--model", tokenize.model, "a directory with a tokenizer")->required();
  auto* text_option = tokenize_verb->add_option("--text", tokenize.text, "the text");
  tokenize_verb->add_option("--file", tokenize.file, "a file with the text")->excludes(text_option);
  tokenize_verb->add_flag("--special", tokenize.special, "spellings of special tokens become their ids");
  tokenize_verb->add_flag("--json", json, "the ids are printed as JSON in any case");
  tokenize_verb->footer("example: drover tokenize --model models/smollm2 --text \"Hello there\"");

  ExportArguments exporting;
  auto* export_verb = app.add_subcommand("export", "an adapter or a merged model out of a run");
  export_verb->add_option("run", exporting.run, "the run's directory (output.dir)")->required();
  auto* adapter_option = export_verb->add_option("--adapter", exporting.adapter, "write a PEFT adapter here");
  export_verb->add_option("--merged", exporting.merged, "write a merged model here")->excludes(adapter_option);
  std::string target;
  export_verb->add_option("--target", target, "not built yet");
  export_verb->add_option("--step", exporting.step, "from this checkpoint (default: the latest)");
  export_verb->add_flag("--json", exporting.json, "print what was written as JSON");
  export_verb->footer("example: drover export runs/handbook --merged models/handbook-merged");

  std::string gguf, directory, path;
  auto* import_verb = app.add_subcommand("import", "a GGUF file to a Hugging Face directory");
  import_verb->add_option("file", gguf, "FILE.gguf")->required();
  import_verb->add_option("directory", directory, "the directory to make")->required();
  import_verb->footer("example: drover import SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2");

  uint64_t tiny_seed = 1;
  auto* tiny_verb = app.add_subcommand("make-tiny", "a made-up model that knows nothing, for trying the machinery");
  tiny_verb->add_option("directory", directory, "the directory to make")->required();
  tiny_verb->add_option("--seed", tiny_seed, "of its weights");
  tiny_verb->footer("example: drover make-tiny models/made-up-tiny");

  auto* inspect_verb = app.add_subcommand("inspect", "names, shapes, dtypes and hashes of a model, adapter, checkpoint or token store");
  inspect_verb->add_option("path", path, "a file or directory")->required();
  inspect_verb->add_flag("--json", json, "print the result as JSON");
  inspect_verb->footer("example: drover inspect runs/handbook/adapter");

  std::string doctor_recipe;
  auto* doctor_verb = app.add_subcommand("doctor", "is this machine ready, and what to do if not; under launch/run: are the ranks, and how fast do they speak");
  doctor_verb->add_option("--recipe", doctor_recipe, "under launch/run: test the axes of this recipe's mesh");
  doctor_verb->add_flag("--json", json, "print the result as JSON");
  doctor_verb->footer("example: launch/run -n 8 drover doctor --recipe configs/recipes/llama3.1-70b-lora.yaml");

  for (const char* later : {"serve", "chat", "report", "quantize", "compare", "schema"}) {
    if (argc > 1 && std::string(argv[1]) == later) {
      fmt::print(stderr, "drover: the verb {} is not built yet\n", later);
      return static_cast<int>(Exit::usage);
    }
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    const std::string word = argc > 1 ? argv[1] : "";
    const bool a_verb = word.empty() || word.starts_with("-") || (" " + verbs_of(app) + ",").find(" " + word + ",") != std::string::npos;
    fmt::print(stderr, "drover: {}\nRun `drover --help`, or `drover VERB --help` for an example.\n", a_verb ? error.what() : fmt::format("there is no verb {}; there are {}", word, verbs_of(app)));
    return static_cast<int>(Exit::usage);
  }
  if (version || help_keys) {
    std::cout << (version ? version_text() : recipe_help()) << std::flush;
    return static_cast<int>(std::cout ? Exit::done : Exit::io);
  }
  if (app.get_subcommands().empty()) {
    std::cout << app.help();
    return static_cast<int>(Exit::usage);
  }
  if (!target.empty()) {
    fmt::print(stderr, "drover: export --target is not built yet; --adapter DIR is what PEFT and vLLM load, --merged DIR is a Hugging Face model\n");
    return static_cast<int>(Exit::usage);
  }
  if (train_verb->parsed() && recipe.json && !dry_run) {
    fmt::print(stderr, "drover: train --json goes with --dry-run; a run writes its results as JSON lines to output.dir/metrics.jsonl\n");
    return static_cast<int>(Exit::usage);
  }
  take_words(words, recipe);
  if (eval.model.model.empty()) {
    take_words(words, eval.recipe);
  } else {
    eval.recipe.overrides = words;
  }
  tokenize.has_text = text_option->count() > 0;

  Process process;
  try {
    process = start_process(&argc, &argv, train_verb->parsed() && !dry_run ? OnStop::save : OnStop::end);
  } catch (const Error& error) {
    fmt::print(stderr, "drover: {}\n", error.what());
    return static_cast<int>(error.code());
  }
  return guarded(process, [&]() -> Exit {
    const bool by_many = train_verb->parsed() || eval_verb->parsed() || generate_verb->parsed() || doctor_verb->parsed();
    if (process.mpi.size > 1 && !by_many) fail(Exit::usage, "drover {} is done by one process; start it without mpirun", app.get_subcommands().front()->get_name());
    if (train_verb->parsed()) return run_train(process, recipe, dry_run);
    if (plan_verb->parsed()) return run_plan(recipe, ranks);
    if (prepare_verb->parsed()) return run_prepare(recipe);
    if (eval_verb->parsed()) return run_eval(process, eval);
    if (generate_verb->parsed()) return run_generate(process, generate);
    if (tokenize_verb->parsed()) return run_tokenize(tokenize);
    if (export_verb->parsed()) return run_export(process, exporting);
    if (import_verb->parsed()) return run_import(gguf, directory);
    if (tiny_verb->parsed()) return run_make_tiny(directory, tiny_seed);
    if (inspect_verb->parsed()) return run_inspect(path, json);
    if (process.mpi.size > 1 || !doctor_recipe.empty()) return diagnose_ranks(process, doctor_recipe, json);
    return run_doctor(process, json);
  });
}
