// drover generate: one prompt, or a file of them in groups, answered in order.
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "data/prompts.h"
#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "launch/open_device.h"
#include "launch/verbs/arguments.h"
#include "launch/verbs/verb.h"
#include "trainer/engine_settings.h"
#include "trainer/inference.h"
#include "trainer/inputs.h"
#include "trainer/process_memory.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

struct Arguments {
  ModelArguments model;
  std::vector<std::string> overrides;
  std::optional<std::string> prompt;
  std::string prompts, out;
  bool raw = false, greedy = false, json = false, resume = false;
  std::optional<double> temperature, top_p;
  std::optional<uint64_t> seed;
  int64_t max_tokens = 256;
};

constexpr int64_t kTogether = 8;  // prompts of a file that are answered at once

// Drops a half last line that an interrupted run left.
void drop_half_line(const std::string& file) {
  if (!fs::exists(file)) return;
  const std::string text = read_text(file);
  const size_t end = text.rfind('\n');
  if (end == std::string::npos || end + 1 != text.size()) write_text(file, end == std::string::npos ? "" : text.substr(0, end + 1));
}

// How many answers a file holds already; 65 where one of them is not of the prompt in its place.
size_t answers_in(const std::string& file, const std::vector<Prompt>& prompts) {
  if (!fs::exists(file)) return 0;
  const std::vector<Prompt> answered = fs::file_size(file) == 0 ? std::vector<Prompt>{} : read_prompts(file);
  for (size_t i = 0; i < answered.size(); ++i) {
    if (i < prompts.size() && answered[i].dialog == prompts[i].dialog) continue;
    fail(Exit::bad_data, "{} does not answer {}; --resume goes on with the file of the same prompts, name another --out", answered[i].where,
         i < prompts.size() ? prompts[i].where : "any of the prompts");
  }
  return answered.size();
}

// On a CPU answers are computed in fp32 unless train.dtype says otherwise: bf16 is hardly faster there, and a small model's answer can hang on its last bit.
// A model that would take more than half of the free memory stays in bf16.
bool fits_in_fp32(const ModelConfig& model) { return 4 * static_cast<double>(parameter_count(model)) < 0.5 * static_cast<double>(available_machine_bytes()); }

// What was asked for, the same on every rank.
Recipe settings_of(const Arguments& a, int ranks) {
  if (a.model.model.empty()) fail(Exit::usage, "generate needs --model DIR");
  if (a.prompt.has_value() == !a.prompts.empty()) fail(Exit::usage, "generate needs either --prompt TEXT or --prompts FILE.jsonl");
  if (a.prompts.empty() && !a.out.empty()) fail(Exit::usage, "--out goes with --prompts FILE.jsonl; the answer to a --prompt is printed");
  if (!a.prompts.empty() && a.json) fail(Exit::usage, "--json goes with --prompt; answers to --prompts are JSON lines anyway");
  if (!a.out.empty() && same_file(a.out, a.prompts)) fail(Exit::usage, "--out {} is the file of the prompts itself; name another file", a.out);
  if (a.seed && !a.temperature && !a.top_p) fail(Exit::usage, "--seed goes with --temperature or --top-p; without them the most likely token is always taken");
  if (a.resume && a.out.empty()) fail(Exit::usage, "--resume goes with --out FILE: it keeps the answers that are there");
  constexpr std::string_view kAllowed[] = {"device", "model.tokenizer", "train.dtype", "parallel.tp", "parallel.transport", "data.template", "data.template_date"};
  Recipe recipe = read_overrides(a.overrides, kAllowed);
  if (recipe.parallel.tp != 1 && recipe.parallel.tp != ranks) {
    fail(Exit::bad_recipe, "parallel.tp={} must be the number of ranks, which is {}: generate is tensor-parallel over all of them", recipe.parallel.tp, ranks);
  }
  recipe.model.path = a.model.model;
  return recipe;
}

// The dtype that is stated, or what fits on every rank.
void choose_dtype(Recipe& recipe, const Arguments& a, const Process& process) {
  Communicator& world = *process.world;
  if (std::any_of(a.overrides.begin(), a.overrides.end(), [](const std::string& text) { return text.starts_with("train.dtype="); })) return;
  bool fits = false;
  together(world, [&] {
    fits = device_of(recipe) == DeviceKind::cpu && fits_in_fp32(read_model_config(recipe.model.path));
  });
  if (largest(world, fits ? 0 : 1) == 0) recipe.train.dtype = Precision::fp32;
}

void say_speed(const Answering::Speed& s) {
  const std::string answer = s.answer_tokens == 0 ? "" : fmt::format("; answers: {} more tokens in {:.2f} s, {:.1f} tok/s", s.answer_tokens, s.answer_seconds, static_cast<double>(s.answer_tokens) / s.answer_seconds);
  log::info("prompts: {} tokens in {:.2f} s{}", s.prompt_tokens, s.prompt_seconds, answer);
}

Exit run(const Process& process, const Arguments& a) {
  const int ranks = process.mpi.size;
  Recipe recipe;
  check_same_program(process);
  together(*process.world, [&] { recipe = settings_of(a, ranks); });
  const Sampling sampling{a.greedy || (!a.temperature && !a.top_p), static_cast<float>(a.temperature.value_or(1.0)), static_cast<float>(a.top_p.value_or(1.0)), a.seed.value_or(42)};
  check_same(*process.world, "the command line", fmt::format("{} {} {} {} {} {} {} {} {} {} {} {}", resolved_recipe({recipe, {}}), fmt::join(a.overrides, " "), a.model.adapter, a.prompt.value_or(""), a.prompts, a.out, a.raw, a.max_tokens,
                                                             sampling.greedy, sampling.temperature, sampling.top_p, sampling.seed));
  choose_dtype(recipe, a, process);
  Mesh mesh = make_mesh({{Axis::tp, ranks}});
  Communicator& world = *mesh.world;

  std::vector<Prompt> prompts;
  std::vector<Answering::Question> questions;
  std::optional<Tokenizer> tokenizer;
  InferenceSettings settings{.model = a.model.model, .dtype = dtype_of(recipe.train.dtype)};
  if (!a.model.adapter.empty()) settings.adapter = a.model.adapter;
  together(world, [&] {
    if (a.prompts.empty()) {
      prompts.push_back({{{"user", *a.prompt}}, "--prompt"});
    } else {
      prompts = read_prompts(a.prompts);
    }
    const ModelConfig config = read_model_config(a.model.model);
    tokenizer.emplace(Tokenizer::open(tokenizer_directory(recipe)));
    const std::optional<ChatTemplate> chat = a.raw ? std::nullopt : chat_template(recipe);
    settings.stop_ids = stop_ids(chat, *tokenizer, config.eos);
    int64_t longest = 0;
    for (const Prompt& p : prompts) {
      questions.push_back({prompt_ids(p, *tokenizer, chat, recipe.data.template_date), questions.size()});
      check_ids(questions.back().ids, config, p.where);
      const int64_t tokens = static_cast<int64_t>(questions.back().ids.size());
      if (tokens >= config.max_positions) fail(Exit::bad_data, "{}: the prompt has {} tokens; prompt and answer together may have {}", p.where, tokens, config.max_positions);
      longest = std::max(longest, tokens);
    }
    settings.sequences = std::min<int64_t>(kTogether, static_cast<int64_t>(prompts.size()));
    settings.capacity_tokens = longest + std::min(a.max_tokens, config.max_positions - longest);
  });
  Inference inference(settings, mesh, [&](const Mesh& host) { return open_device(host, recipe, process); });
  const bool first = world.rank() == 0;

  if (a.prompts.empty()) {
    const Answering::Answer answer = inference.answering().answer(questions, sampling, a.max_tokens).front();
    if (!first) return Exit::done;
    say_speed(inference.answering().speed());
    const std::string text = tokenizer->decode(answer.ids);
    if (a.json) {
      std::cout << ordered_json{{"prompt_ids", questions.front().ids}, {"ids", answer.ids}, {"text", text}, {"finish_reason", answer.stopped ? "stop" : "length"}}.dump() << '\n';
    } else {
      std::cout << text << '\n';
    }
    return Exit::done;
  }

  size_t done = 0;
  std::ofstream file;
  if (!a.out.empty()) {
    together(world, [&] {
      if (a.resume && first) drop_half_line(a.out);
    });
    together(world, [&] {
      if (a.resume) done = answers_in(a.out, prompts);
    });
    together(world, [&] {
      if (!first) return;
      file.open(a.out, a.resume ? std::ios::app : std::ios::trunc);
      if (!file) fail(Exit::io, "cannot write {}", a.out);
    });
  }
  std::ostream& out = a.out.empty() ? std::cout : file;
  for (size_t begin = done; begin < prompts.size(); begin += kTogether) {
    const auto group = std::span(questions).subspan(begin, std::min<size_t>(kTogether, questions.size() - begin));
    inference.answering().answer(group, sampling, a.max_tokens, [&](size_t i, const Answering::Answer& answer) {
      if (first) out << answered_row(prompts[begin + i], tokenizer->decode(answer.ids)) << '\n' << std::flush;
    });
    together(world, [&] {
      if (first && !out) fail(Exit::io, "cannot write {}; is the disk full?", a.out.empty() ? "to stdout" : a.out);
    });
  }
  if (first && done < prompts.size()) say_speed(inference.answering().speed());
  return Exit::done;
}

// CLI11 would read -1 as 2^64-1.
CLI::Validator not_negative() {
  return CLI::Validator(
      [](std::string& text) {
        return text.find('-') == std::string::npos ? std::string() : text + " is not a number from 0 on";
      },
      ">= 0");
}

}  // namespace

Verb generate_verb(CLI::App& app) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* options = app.add_subcommand("generate", "answer a prompt, or a file of prompts");
  add_model_options(options, a->model);
  options->add_option("overrides", a->overrides,
                      "section.key=value, for example train.dtype=bf16 (default: fp32 where the model takes less than "
                      "half of the free memory)");
  options->add_option("--prompt", a->prompt, "the prompt");
  options->add_option("--prompts", a->prompts,
                      "JSONL rows of {\"prompt\"} or {\"messages\"}; one answer a line, in order");
  options->add_flag("--raw", a->raw, "no chat template");
  auto* greedy = options->add_flag("--greedy", a->greedy,
                                   "always the most likely token; so it is without --temperature and --top-p too");
  options->add_option("--temperature", a->temperature, "above 0, at most 100")
      ->check(above_zero("; for 0, use --greedy"))
      ->check(CLI::Range(1e-6, 100.0))
      ->excludes(greedy);
  options->add_option("--top-p", a->top_p, "in (0, 1]")->check(CLI::Range(1e-6, 1.0))->excludes(greedy);
  options->add_option("--seed", a->seed, "of the sampling")->check(not_negative())->excludes(greedy);
  options->add_option("--max-tokens", a->max_tokens, "longest answer")->check(above_zero());
  options->add_option("--out", a->out, "with --prompts: write the answers to this file instead of stdout");
  options->add_flag("--resume", a->resume, "with --out: keep the answers that are there and go on after them");
  options->add_flag("--json", a->json, "with --prompt: print ids and finish_reason too");
  options->footer(
      "example: drover generate --model models/smollm2 --prompt \"What is the capital of France?\" --greedy");
  return {.options = options, .run = [a](const Process& process) { return run(process, *a); }, .by_many = true};
}

}  // namespace drover
