// drover export: an adapter or a merged model, out of a checkpoint, read back and checked.
#include "trainer/export/export.h"

#include <iostream>
#include <nlohmann/json.hpp>

#include "kernels/base/log.h"
#include "kernels/base/program.h"
#include "kernels/comm/agree.h"
#include "kernels/cpu/cpu_backend.h"
#include "launch/verbs/run_recipe.h"
#include "launch/verbs/verb.h"
#include "model/files/factor.h"
#include "model/files/new_directory.h"
#include "model/files/staged_directory.h"
#include "trainer/export/adapter_effect.h"
#include "trainer/export/compare_export.h"
#include "trainer/export/merge.h"
#include "trainer/export/merge_gguf.h"
#include "trainer/export/model_card.h"
#include "trainer/export/text_files.h"
#include "trainer/export/verify_export.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/run_identity.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/model_check.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

struct Arguments {
  std::string run, model, from, adapter, merged, target, outtype, weights;
  std::optional<int64_t> step, max_shard_bytes;
  bool keep_format = false, json = false;
};

bool one_file(const Arguments& a) { return a.target == "llamacpp" && !a.merged.empty(); }

std::optional<std::string> answer(const Arguments& a) {
  if (!a.target.empty() && a.target != "peft" && a.target != "vllm" && a.target != "llamacpp")
    fail(Fault::usage, "--target {} is unknown; allowed are peft, vllm and llamacpp", a.target);
  if (!a.merged.empty() && (a.target == "peft" || a.target == "vllm"))
    fail(Fault::usage,
         "--target {} is of --adapter; --merged DIR without --target is a Hugging Face model, which transformers and "
         "vLLM load; with --target llamacpp it is one GGUF file",
         a.target);
  if (a.target.empty() && fs::path(a.merged).extension() == ".gguf")
    fail(Fault::usage, "--merged {} without --target is a directory; for one GGUF file add --target llamacpp",
         a.merged);
  if (!a.outtype.empty() && !one_file(a))
    fail(Fault::usage, "--outtype is of a merged model as one GGUF file: --merged FILE --target llamacpp");
  if (!a.outtype.empty() && !gguf_outtype(a.outtype))
    fail(Fault::usage, "--outtype {} is unknown; allowed are bf16, f16 and q8_0", a.outtype);
  const bool directory = !a.merged.empty() && !one_file(a);
  if (a.keep_format && !directory)
    fail(Fault::usage, "--keep-format is of a merged model's directory: --merged DIR without --target");
  if (a.max_shard_bytes && !directory)
    fail(Fault::usage, "--max-shard-bytes is of a merged model's directory: --merged DIR without --target");
  if (a.max_shard_bytes && *a.max_shard_bytes <= 0)
    fail(Fault::usage, "--max-shard-bytes {} must be above 0", *a.max_shard_bytes);
  WeightFormat weights{};
  if (!a.weights.empty() && !read_word(a.weights, weights))
    fail(Fault::usage, "--weights {} is unknown; allowed are as_is, bf16, fp8 and nf4", a.weights);
  if (!a.weights.empty() && (a.from.empty() || a.merged.empty())) {
    fail(Fault::usage,
         "--weights is of an adapter from elsewhere that is merged: --from ADAPTER; a run's recipe says what it was "
         "trained over");
  }
  return std::nullopt;
}

// How far the logits of a merged model may be off: contract.md's bound where the base is kept in fp32, else what one
// rounding of the weights to bf16 moves.
double merged_bound(ModelDirectory& base) {
  const std::vector<ParamSpec> table = weight_table(base.config());
  const bool fp32 = std::all_of(table.begin(), table.end(),
                                [&](const ParamSpec& spec) { return base.plain_dtype(spec.name) == StoredType::f32; });
  return fp32 ? 1e-5 : 0.05;
}

// What is merged with what.
struct Merging {
  ModelDirectory& base;
  WeightsAs trained_over;
};

// `adapter`: a directory.
void verify_merged(const Process& process, const fs::path& adapter, const Merging& of, const fs::path& merged,
                   MergeReport& report) {
  ModelDirectory& base = of.base;
  const std::optional<MergedCheck> check =
      check_merged_logits(base.path(), of.trained_over, adapter, merged, process.threads);
  if (!check) {
    report.why_no_logits = "there is not the memory to run the model in fp32";
    log::warn("the merged model's logits were not compared: {}. Every merged weight was checked by itself",
              report.why_no_logits);
    return;
  }
  report.logits = {check->difference, check->effect};
  log::info(
      "logits of the merged model: off by {:.1e} from base and adapter together; the adapter moves them by {:.1e}",
      check->difference, check->effect);
  // Every weight is right to its last bit; so this is what rounding them does.
  if (check->difference > merged_bound(base)) {
    log::warn(
        "rounding the merged weights to the base's number type moves the logits more than usual; where that matters, "
        "use the adapter without merging it");
  }
}

// The run's base, or the one that --model names where it has moved.
ReadRecipe recipe_of(const fs::path& run, const Arguments& a) {
  if (!fs::exists(run / "recipe.yaml"))
    fail(Fault::missing_input, "{} holds no recipe.yaml; a run's directory is the output.dir of its recipe",
         run.string());
  ReadRecipe read = read_recipe(run / "recipe.yaml", {});
  Recipe& recipe = read.recipe;
  if (!a.model.empty()) {
    recipe.model.path = model_directory(a.model);
  } else if (!fs::is_directory(recipe.model.path)) {
    fail(Fault::missing_input, "the run's model {} is not there any more; say where it is now: --model DIR",
         recipe.model.path);
  }
  return read;
}

Checkpoint checkpoint_of(const fs::path& run, std::optional<int64_t> step) {
  if (!step) {
    auto latest = Checkpoint::latest(run, [](const std::string& text) { log::warn("{}", text); });
    if (!latest) fail(Fault::missing_input, "{} holds no checkpoint that verifies; train it first", run.string());
    return std::move(*latest);
  }
  const fs::path directory = run / fmt::format("step-{}", *step);
  if (!fs::exists(directory)) {
    std::vector<int64_t> steps;
    for (const auto& [each, path] : checkpoint_directories(run)) steps.push_back(each);
    fail(Fault::missing_input, "{} does not exist; the run holds {}", directory.string(),
         steps.empty() ? "no checkpoint" : fmt::format("checkpoints of step {}", fmt::join(steps, ", ")));
  }
  return Checkpoint::open(directory);
}

// What --adapter asks for. llama.cpp's is one file.
void write_adapter_for(const Arguments& a, const AdapterForm& adapter, const Recipe& recipe, const ModelConfig& model) {
  if (a.target == "llamacpp") return write_for_llamacpp(adapter, model, a.adapter);
  export_adapter(a.target == "vllm" ? for_vllm(adapter) : adapter, dtype_of(recipe.output.adapter_dtype), a.adapter,
                 text_files(recipe, model));
}

// PEFT's, with what it computes and its page.
void write_compared(const Process& process, const Arguments& a, const Checkpoint& checkpoint, const ReadRecipe& read,
                    ModelDirectory& base) {
  const Recipe& recipe = read.recipe;
  StagedAdapter staged(adapter_of(checkpoint), dtype_of(recipe.output.adapter_dtype), a.adapter,
                       text_files(recipe, base.config()));
  const Comparison comparison = compare_export({checkpoint, recipe, a.run, staged.path()}, base, process.threads);
  check(comparison, a.adapter, "the checkpoint is untouched: export again; if it stays, this machine computes wrongly");
  const LossesOfStep losses = losses_of_step(fs::path(a.run) / "metrics.jsonl", checkpoint.state().step);
  write_pages(staged.path(), staged.has_page(), {read, base.config(), checkpoint.state(), losses, comparison});
  staged.commit();
  say(comparison, comparison.merged ? merged_bound(base) : 0);
}

// What was trained over is not always what the files hold.
void say_other_numbers(WeightFormat weights, const ModelDirectory& base) {
  if (weights != WeightFormat::fp8 && weights != WeightFormat::nf4) return;
  if (base.is_quantised()) return;
  log::info(
      "the adapter was trained over {} made of the base's numbers: it is merged into what these codes mean, not into "
      "the numbers of the files",
      word_of(weights));
}

void check_alone(const Process& process, const Arguments& a) {
  if (process.mpi.size == 1 || (!a.merged.empty() && !one_file(a))) return;
  fail(Fault::usage, "of export, --merged DIR alone is done by several processes; start this without mpirun");
}

MergeSettings merge_settings(const Process& process, const Arguments& a, WeightsAs trained_over) {
  MergeSettings settings{.trained_over = trained_over, .keep_format = a.keep_format, .world = process.world.get()};
  if (a.max_shard_bytes) settings.max_shard_bytes = *a.max_shard_bytes;
  return settings;
}

// For people, and for --json.
void print_report(const Process& process, const Arguments& a, const MergeReport& report) {
  if (process.mpi.rank == 0 && !a.json) std::cout << report_table(report) << '\n';
}

void say_merged(const Arguments& a, const std::string& what) {
  if (one_file(a)) {
    log::info(
        "the merged model of {} is in {} ({:.1f} MB), read back and checked; llama.cpp and what is built on it load "
        "it\n"
        "  try it: llama-cli -m {}",
        what, a.merged, static_cast<double>(fs::file_size(a.merged)) / 1e6, shell_quoted(a.merged));
    return;
  }
  log::info(
      "the merged model of {} is in {}, read back and checked\n  try it: {} generate --model {} --prompt \"…\" "
      "--greedy",
      what, a.merged, shell_quoted(program_name()), shell_quoted(a.merged));
}

void write_merged_file(const Process& process, const Arguments& a, const AdapterForm& adapter, BaseWeights& base,
                       const Recipe& recipe) {
  const GgufType type = gguf_outtype(a.outtype.empty() ? "bf16" : a.outtype).value();
  merge_to_gguf({adapter.config, adapter.values}, base, a.merged, type, *make_cpu_backend(process.threads),
                model_texts(recipe, base.config()), weights_as(recipe.model.weights));
}

// One line of JSON.
void print_json(const Process& process, const Arguments& a, const ordered_json& origin, const MergeReport* report) {
  if (!a.json || process.mpi.rank != 0) return;
  ordered_json json = {{a.adapter.empty() ? "merged" : "adapter", a.adapter.empty() ? a.merged : a.adapter}};
  json.update(origin);
  if (report != nullptr) json["report"] = ordered_json::parse(report_json(*report));
  std::cout << json.dump() << '\n';
}

// The processes of the job do one thing.
void agree(const Process& process, const Arguments& a) {
  check_alone(process, a);
  if (process.mpi.size == 1) return;
  check_same_program(process);
  check_same(*process.world, "what is asked for",
             fmt::format("{} {} {} {} {} {} {} {}", a.run, a.model, a.from, a.merged, a.weights, a.step.value_or(-1),
                         a.max_shard_bytes.value_or(-1), a.keep_format));
}

// `probe`: a directory of the adapter, made where it is asked for.
MergeReport write_merged(const Process& process, const Arguments& a, const AdapterForm& adapter, BaseWeights& base,
                         const Recipe& recipe, const std::function<fs::path()>& probe) {
  const Merging of{base.directory(), weights_as(recipe.model.weights)};
  say_other_numbers(recipe.model.weights, of.base);
  const auto backend = make_cpu_backend(process.threads);
  const auto check = [&](const fs::path& merged, MergeReport& report) {
    verify_merged(process, probe(), of, merged, report);
  };
  return merge({adapter.config, adapter.values}, base, a.merged, *backend, text_files(recipe, of.base.config()), check,
               merge_settings(process, a, of.trained_over));
}

Exit export_run(const Process& process, const Arguments& a) {
  std::optional<ReadRecipe> read;
  std::optional<Checkpoint> checkpoint;
  std::optional<ModelDirectory> base;
  together(*process.world, [&] {
    read.emplace(recipe_of(a.run, a));
    checkpoint.emplace(checkpoint_of(a.run, a.step));
    base.emplace(read->recipe.model.path);
  });
  const Recipe& recipe = read->recipe;
  const int64_t step = checkpoint->state().step;
  std::optional<MergeReport> report;
  if (!a.adapter.empty()) {
    if (a.target.empty() || a.target == "peft") {
      write_compared(process, a, *checkpoint, *read, *base);
    } else {
      write_adapter_for(a, adapter_of(*checkpoint), recipe, base->config());
    }
    log::info("the adapter of step {} is in {}, read back and checked", step, a.adapter);
  } else {
    check_same_adapter(*checkpoint, recipe, check_weights_together(*base, {0, base->config().layers}, *process.world));
    BaseWeights weights(*base);
    const AdapterForm adapter = adapter_of(*checkpoint);
    if (one_file(a)) {
      say_other_numbers(recipe.model.weights, *base);
      write_merged_file(process, a, adapter, weights, recipe);
    } else {
      std::optional<StagedDirectory> probe;  // never committed
      report = write_merged(process, a, adapter, weights, recipe, [&] {
        probe.emplace(without_slash(a.merged) += ".probe");
        export_adapter(adapter, DType::f32, probe->path() / "adapter");
        return probe->path() / "adapter";
      });
      print_report(process, a, *report);
    }
    say_merged(a, fmt::format("step {}", step));
  }
  print_json(process, a, {{"step", step}}, report ? &*report : nullptr);
  return Exit::done;
}

// An adapter from elsewhere.
Exit export_from(const Process& process, const Arguments& a) {
  Recipe recipe;
  const fs::path adapter = model_directory(a.from);
  std::optional<ModelDirectory> base;
  std::optional<AdapterFile> file;
  std::optional<BaseWeights> weights;
  together(*process.world, [&] {
    recipe.model.path = model_directory(a.model);
    if (!a.weights.empty()) read_word(a.weights, recipe.model.weights);
    take_tokenizer(recipe, adapter);
    base.emplace(recipe.model.path);
    file.emplace(adapter);
    weights.emplace(*base, *file);
    check_fits(*file, weights->config());
    say_effect(adapter, base->path());
  });
  AdapterForm form{file->config(), file->shapes(), [&](const std::string& name) { return file->read(name); }};
  std::optional<MergeReport> report;
  if (!a.adapter.empty()) {
    if (keeps_base(*file, *base))
      std::erase_if(form.shapes, [](const auto& tensor) { return !factor_of(tensor.first); });
    write_adapter_for(a, form, recipe, base->config());
    log::info("the adapter of {} is in {}, read back and checked", a.from, a.adapter);
  } else {
    if (one_file(a)) {
      say_other_numbers(recipe.model.weights, *base);
      write_merged_file(process, a, form, *weights, recipe);
    } else {
      report = write_merged(process, a, form, *weights, recipe, [&] { return adapter; });
      print_report(process, a, *report);
    }
    say_merged(a, a.from);
  }
  print_json(process, a, {{"from", a.from}}, report ? &*report : nullptr);
  return Exit::done;
}

Exit run(const Process& process, const Arguments& a) {
  if (a.from.empty() == a.run.empty())
    fail(Fault::usage, "export needs a run's directory, or --model DIR --from ADAPTER for an adapter from elsewhere");
  if (a.adapter.empty() && a.merged.empty()) fail(Fault::usage, "export needs --adapter DIR or --merged DIR");
  if (!a.from.empty() && a.model.empty()) fail(Fault::usage, "--from needs --model DIR");
  if (!a.from.empty() && a.step) fail(Fault::usage, "--step is of a run, and --from names an adapter");
  agree(process, a);
  if (a.from.empty()) return export_run(process, a);
  return export_from(process, a);
}

}  // namespace

Verb export_verb(CLI::App& app) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* options = app.add_subcommand("export", "an adapter or a merged model out of a run");
  options->add_option("run", a->run, "the run's directory (output.dir)");
  options->add_option("--model", a->model, "the base, where it is not (any more) where the run's recipe says");
  options->add_option("--from", a->from, "instead of a run: an adapter from elsewhere, for --model and --merged");
  auto* adapter = options->add_option("--adapter", a->adapter, "write a PEFT adapter here");
  options->add_option("--merged", a->merged, "write a merged model here: a directory; with --target llamacpp a file")
      ->excludes(adapter);
  options->add_option("--target", a->target,
                      "peft (default), vllm: one rank and scale for all linears; llamacpp: one GGUF file");
  options->add_option("--outtype", a->outtype, "of a merged GGUF file: bf16 (default), f16 or q8_0");
  options->add_flag("--keep-format", a->keep_format,
                    "of a base in fp8 or NF4: requantise what is merged (default: 16-bit numbers)");
  options->add_option("--max-shard-bytes", a->max_shard_bytes,
                      "how large a merged model's weight files get (default: 5000000000); they are dealt out over the "
                      "processes");
  options->add_option(
      "--weights", a->weights,
      "with --from: what the base's numbers were made into in training: as_is (default), bf16, fp8, nf4 "
      "(QLoRA)");
  options->add_option("--step", a->step, "from this checkpoint (default: the latest)");
  options->add_flag("--json", a->json, "print what was written as JSON");
  options->footer(
      "example: drover export runs/handbook --merged models/handbook-merged\n"
      "by many: launch/run -n 8 drover export runs/handbook --merged models/handbook-merged");
  return {.options = options,
          .run = [a](const Process& process) { return run(process, *a); },
          .by_many = true,
          .answer = [a] { return answer(*a); }};
}

}  // namespace drover
