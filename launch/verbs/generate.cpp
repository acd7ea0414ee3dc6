// drover generate: one prompt, or a file of them in groups, answered in order.
#include <iostream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <ranges>

#include "data/prompts.h"
#include "data/stop_texts.h"
#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "launch/open_device.h"
#include "launch/verbs/answer_file.h"
#include "launch/verbs/arguments.h"
#include "launch/verbs/verb.h"
#include "model/generation/answers.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/generation/inference.h"
#include "trainer/setup/inputs.h"
#include "trainer/run/process_memory.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

struct Arguments {
  std::string model;
  std::vector<std::string> adapters;
  std::vector<std::string> overrides;
  std::optional<std::string> prompt;
  std::string prompts, out;
  bool raw = false, greedy = false, json = false, resume = false;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
  std::optional<uint64_t> seed;
  int64_t max_tokens = 256;
  std::vector<std::string> stop;
};

constexpr int64_t kTogether = 8;  // prompts of a file that are answered at once

// On a CPU answers are computed in fp32 unless train.dtype says otherwise: bf16 is hardly faster there, and a small
// model's answer can hang on its last bit. A model that would take more than half of the free memory stays in bf16.
bool fits_in_fp32(const ModelConfig& model) {
  return 4 * static_cast<double>(parameter_count(model)) < 0.5 * static_cast<double>(available_machine_bytes());
}

bool draws(const Arguments& a) { return a.temperature || a.top_p || a.top_k || a.min_p; }

// One for all prompts, or some by name among which rows choose.
struct Adapters {
  std::optional<fs::path> of_all;
  std::map<std::string, fs::path> named;
};

Adapters adapters_of(const Arguments& a) {
  Adapters adapters;
  for (const std::string& text : a.adapters) {
    const size_t end = text.find('=');
    if (end == std::string::npos || fs::exists(text)) {
      if (a.adapters.size() > 1) {
        fail(Fault::usage,
             "--adapter {} is for all prompts, and cannot be joined by others; give each as NAME=DIR, and rows of "
             "--prompts choose by {{\"adapter\": NAME}}",
             text);
      }
      adapters.of_all = text;
    } else if (end == 0 || end + 1 == text.size()) {
      fail(Fault::usage, "--adapter {} is neither DIR nor NAME=DIR", text);
    } else if (!adapters.named.emplace(text.substr(0, end), text.substr(end + 1)).second) {
      fail(Fault::usage, "--adapter gives the name {} twice", text.substr(0, end));
    }
  }
  if (!adapters.named.empty() && a.prompts.empty()) {
    fail(Fault::usage,
         "--adapter NAME=DIR goes with --prompts, whose rows choose by name; with --prompt give --adapter DIR");
  }
  return adapters;
}

// What was asked for, the same on every rank.
Recipe settings_of(const Arguments& a) {
  if (a.model.empty()) fail(Fault::usage, "generate needs --model DIR");
  if (a.prompt.has_value() == !a.prompts.empty())
    fail(Fault::usage, "generate needs either --prompt TEXT or --prompts FILE.jsonl");
  if (a.prompts.empty() && !a.out.empty())
    fail(Fault::usage, "--out goes with --prompts FILE.jsonl; the answer to a --prompt is printed");
  if (!a.prompts.empty() && a.json)
    fail(Fault::usage, "--json goes with --prompt; answers to --prompts are JSON lines anyway");
  if (!a.out.empty() && same_file(a.out, a.prompts))
    fail(Fault::usage, "--out {} is the file of the prompts itself; name another file", a.out);
  if (a.seed && !draws(a)) {
    fail(Fault::usage,
         "--seed goes with --temperature, --top-p, --top-k or --min-p; without them the most likely token is always "
         "taken");
  }
  if (std::ranges::count(a.stop, std::string()) > 0)
    fail(Fault::usage, "--stop needs a text; an empty one would end every answer at once");
  if (a.resume && a.out.empty())
    fail(Fault::usage, "--resume goes with --out FILE: it keeps the answers that are there");
  constexpr std::string_view kAllowed[] = {"device",      "model.tokenizer",    "train.dtype",   "parallel.tp",
                                           "parallel.pp", "parallel.transport", "data.template", "data.template_date"};
  Recipe recipe = read_overrides(a.overrides, kAllowed);
  recipe.model.path = a.model;
  return recipe;
}

Sampling sampling_of(const Arguments& a) {
  return {.greedy = a.greedy || !draws(a),
          .temperature = static_cast<float>(a.temperature.value_or(1.0)),
          .top_p = static_cast<float>(a.top_p.value_or(1.0)),
          .top_k = a.top_k.value_or(0),
          .min_p = static_cast<float>(a.min_p.value_or(0.0)),
          .seed = a.seed.value_or(42),
          .repetition_penalty = static_cast<float>(a.repetition_penalty.value_or(1.0))};
}

// What all ranks must have been given alike.
std::string command_line(const Recipe& recipe, const Arguments& a) {
  const Sampling s = sampling_of(a);
  return fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}", resolved_recipe({recipe, {}}),
                     fmt::join(a.overrides, " "), fmt::join(a.adapters, " "), a.prompt.value_or(""), a.prompts, a.out,
                     a.raw, a.max_tokens, s.greedy, s.temperature, s.top_p, s.top_k, s.min_p, s.repetition_penalty,
                     s.seed, fmt::join(a.stop, "\n"));
}

// The dtype that is stated, or what fits on every rank.
void choose_dtype(Recipe& recipe, const Arguments& a, const Process& process) {
  Communicator& world = *process.world;
  if (std::any_of(a.overrides.begin(), a.overrides.end(),
                  [](const std::string& text) { return text.starts_with("train.dtype="); }))
    return;
  bool fits = false;
  together(world,
           [&] { fits = device_of(recipe) == DeviceKind::cpu && fits_in_fp32(read_model_config(recipe.model.path)); });
  if (largest(world, fits ? 0 : 1) == 0) recipe.train.dtype = Precision::fp32;
}

// The mesh of all ranks: parallel.pp stages, and as many ranks in each as there are.
MeshShape mesh_of(const ParallelSection& parallel, int ranks) {
  const int64_t pp = parallel.pp, tp = parallel.tp != 1 ? parallel.tp : std::max<int64_t>(1, ranks / pp);
  if (tp * pp != ranks) {
    fail(
        Fault::bad_recipe,
        "parallel.tp={} times parallel.pp={} must be the number of ranks, which is {}: generate divides the model over "
        "all of them",
        tp, pp, ranks);
  }
  return {{Axis::tp, static_cast<int>(tp)}, {Axis::pp, static_cast<int>(pp)}};
}

// A prompt as the model gets it, or why it cannot be answered.
struct Question {
  Prompt prompt;
  std::vector<int32_t> ids;
  std::optional<Error> error;
  std::optional<size_t> adapter;  // of the named ones
};

Question question_of(const Prompt& prompt, const Tokenizer& tokenizer, const std::optional<ChatTemplate>& chat,
                     const Recipe& recipe, const ModelConfig& config) {
  Question q{prompt, {}, {}, {}};
  try {
    if (!prompt.problem.empty()) fail(Fault::bad_data, "{}: {}", prompt.where, prompt.problem);
    q.ids = prompt_ids(prompt, tokenizer, chat, recipe.data.template_date);
    check_ids(q.ids, config, prompt.where);
    if (static_cast<int64_t>(q.ids.size()) >= config.max_positions) {
      fail(Fault::bad_data, "{}: the prompt has {} tokens; prompt and answer together may have {}", prompt.where,
           q.ids.size(), config.max_positions);
    }
  } catch (const Error& error) {
    if (error.fault() != Fault::bad_data) throw;
    q.error = error;
  }
  return q;
}

// Which of the named adapters a prompt asks for.
size_t named(const Adapters& adapters, const Prompt& prompt) {
  const auto found = adapters.named.find(prompt.adapter);
  if (found != adapters.named.end()) return static_cast<size_t>(std::distance(adapters.named.begin(), found));
  std::string known = "no --adapter NAME=DIR gives it";
  if (!adapters.named.empty())
    known = fmt::format("those of --adapter are {}", fmt::join(std::views::keys(adapters.named), ", "));
  fail(Fault::bad_data, "{}: there is no adapter {}: {}", prompt.where, prompt.adapter, known);
}

// Everything that is asked, and how to read the answers.
struct Session {
  Session(const Arguments& a, const Recipe& recipe);

  std::optional<Tokenizer> tokenizer;
  std::vector<Question> questions;
  std::vector<int32_t> stop_ids;
  InferenceSettings inference;
};

Session::Session(const Arguments& a, const Recipe& recipe) {
  std::vector<Prompt> prompts;
  if (a.prompts.empty()) {
    prompts.push_back({{{"user", *a.prompt}}, "--prompt", {}});
  } else {
    prompts = read_prompts(a.prompts, PromptRows::all);
  }
  const Adapters adapters = adapters_of(a);
  inference.adapter = adapters.of_all;
  for (const auto& [name, directory] : adapters.named) inference.named_adapters.push_back(directory);
  const ModelConfig config = read_model_config(a.model);
  tokenizer.emplace(Tokenizer::open(tokenizer_directory(recipe)));
  const std::optional<ChatTemplate> chat = a.raw ? std::nullopt : chat_template(recipe);
  stop_ids = drover::stop_ids(chat, *tokenizer, config.eos);
  int64_t longest = 1;
  for (const Prompt& p : prompts) {
    questions.push_back(question_of(p, *tokenizer, chat, recipe, config));
    Question& q = questions.back();
    if (!p.adapter.empty()) q.adapter = named(adapters, p);
    if (q.error && a.prompts.empty()) throw *q.error;
    if (!q.error) longest = std::max(longest, static_cast<int64_t>(q.ids.size()));
  }
  inference.model = a.model;
  inference.dtype = dtype_of(recipe.train.dtype);
  inference.batcher.dearest = sampling_of(a);
  inference.batcher.sequences = std::min<int64_t>(kTogether, static_cast<int64_t>(prompts.size()));
  inference.capacity_tokens = longest + std::min(a.max_tokens, config.max_positions - longest);
}

void say_speed(const Batcher::Speed& s) {
  std::string answer;
  if (s.answer_tokens > 0) {
    answer = fmt::format("; answers: {} more tokens in {:.2f} s, {:.1f} tok/s", s.answer_tokens, s.answer_seconds,
                         static_cast<double>(s.answer_tokens) / s.answer_seconds);
  }
  log::info("prompts: {} tokens in {:.2f} s{}", s.prompt_tokens, s.prompt_seconds, answer);
}

Request request_of(const Session& session, const Inference& inference, const Question& question, size_t number,
                   const Arguments& a) {
  const int others = session.inference.named_adapters.empty() ? kOwnSlot : kBaseModel;
  return {.ids = question.ids,
          .sampling = sampling_of(a),
          .stop_ids = session.stop_ids,
          .max_tokens = a.max_tokens,
          .number = number,
          .slot = question.adapter ? inference.slot_of(*question.adapter) : others};
}

// The texts of answers that grow: each ends before the first of --stop.
class Texts {
 public:
  Texts(const Tokenizer& tokenizer, const std::vector<std::string>& stop, size_t answers)
      : tokenizer_(tokenizer), any_(!stop.empty()), texts_(any_ ? answers : 0, {tokenizer, stop}) {}

  bool stops(size_t index, const Answer& answer) { return any_ && texts_[index].push(answer.ids.back()); }
  std::string of(size_t index, const Answer& answer) const {
    return any_ && texts_[index].found() ? texts_[index].text() : tokenizer_.decode(answer.ids);
  }

 private:
  const Tokenizer& tokenizer_;
  bool any_;
  std::vector<StopTexts> texts_;
};

// Prints the answer to --prompt.
void answer_one(const Session& session, Inference& inference, const Arguments& a, bool first) {
  Batcher& batcher = inference.batcher();
  const Question& question = session.questions.front();
  Texts texts(*session.tokenizer, a.stop, 1);
  const auto stops = [&](size_t i, const Answer& answer) { return texts.stops(i, answer); };
  const Answer answer = answer_all(batcher, {request_of(session, inference, question, 0, a)}, {.stops = stops}).front();
  if (answer.error) throw *answer.error;
  if (!first) return;
  say_speed(batcher.speed());
  const std::string text = texts.of(0, answer);
  if (a.json) {
    const ordered_json row{{"prompt_ids", question.ids},
                           {"ids", answer.ids},
                           {"text", text},
                           {"finish_reason", answer.finish == Finish::stop ? "stop" : "length"}};
    std::cout << row.dump() << '\n';
  } else {
    std::cout << text << '\n';
  }
}

// Answers --prompts, a line each, in order and as soon as it is known. A prompt that cannot be answered gives an error
// in its place; bad_data where there was one.
Exit answer_file(const Session& session, Inference& inference, const Arguments& a, Communicator& world) {
  Batcher& batcher = inference.batcher();
  std::vector<Prompt> prompts;
  for (const Question& q : session.questions) prompts.push_back(q.prompt);
  AnswerFile file(a.out, a.resume, prompts, world);
  size_t next = file.done(), failed = 0;  // the line that is written next
  const auto write_errors_before = [&](size_t index) {
    for (; next < index; ++next, ++failed) file.write_error(next, session.questions[next].error->what());
  };
  std::vector<Request> requests;
  std::vector<size_t> asked;
  for (size_t i = file.done(); i < prompts.size(); ++i) {
    if (session.questions[i].error) continue;
    asked.push_back(i);
    requests.push_back(request_of(session, inference, session.questions[i], i, a));
  }
  Texts texts(*session.tokenizer, a.stop, requests.size());
  const auto stops = [&](size_t i, const Answer& answer) { return texts.stops(i, answer); };
  const auto known = [&](size_t i, const Answer& answer) {
    write_errors_before(asked[i]);
    if (answer.error) {
      ++failed;
      file.write_error(next, fmt::format("{}: {}", prompts[next].where, answer.error->what()));
    } else {
      file.write(prompts[next], texts.of(i, answer));
    }
    ++next;
    file.check();
  };
  answer_all(batcher, std::move(requests), {.known = known, .stops = stops});
  write_errors_before(prompts.size());
  file.check();
  if (world.rank() != 0) return failed == 0 ? Exit::done : Exit::bad_data;
  if (!asked.empty()) say_speed(batcher.speed());
  if (failed > 0) {
    log::warn("{} of {} prompts could not be answered; each has an \"error\" in its place", failed, prompts.size());
  }
  return failed == 0 ? Exit::done : Exit::bad_data;
}

Exit run(const Process& process, const Arguments& a) {
  const int ranks = process.mpi.size;
  Recipe recipe;
  MeshShape shape;
  check_same_program(process);
  together(*process.world, [&] {
    recipe = settings_of(a);
    shape = mesh_of(recipe.parallel, ranks);
  });
  check_same(*process.world, "the command line", command_line(recipe, a));
  choose_dtype(recipe, a, process);
  Mesh mesh = make_mesh(shape);
  std::optional<Session> session;
  together(*mesh.world, [&] { session.emplace(a, recipe); });
  Inference inference(session->inference, mesh, [&](const Mesh& host) { return open_device(host, recipe, process); });
  if (!a.prompts.empty()) return answer_file(*session, inference, a, *mesh.world);
  answer_one(*session, inference, a, mesh.world->rank() == 0);
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
  options->add_option("--model", a->model, "the model's directory");
  options
      ->add_option("--adapter", a->adapters,
                   "a PEFT adapter's directory, for all prompts; or NAME=DIR, several times, for the rows of --prompts "
                   "that say \"adapter\": NAME (others are the base model's)")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  options->add_option("overrides", a->overrides,
                      "section.key=value, for example train.dtype=bf16 (default: fp32 where the model takes less than "
                      "half of the free memory)");
  options->add_option("--prompt", a->prompt, "the prompt");
  options->add_option("--prompts", a->prompts,
                      "JSONL rows of {\"prompt\"} or {\"messages\"}; one answer a line, in order");
  options->add_flag("--raw", a->raw, "no chat template");
  auto* greedy =
      options->add_flag("--greedy", a->greedy, "always the most likely token; so it is without the next four too");
  options->add_option("--temperature", a->temperature, "above 0, at most 100")
      ->check(above_zero("; for 0, use --greedy"))
      ->check(CLI::Range(1e-6, 100.0))
      ->excludes(greedy);
  options->add_option("--top-p", a->top_p, "in (0, 1]")->check(CLI::Range(1e-6, 1.0))->excludes(greedy);
  options->add_option("--top-k", a->top_k, "draw from so many of the likeliest tokens")
      ->check(CLI::Range(1, std::numeric_limits<int32_t>::max()))
      ->excludes(greedy);
  options
      ->add_option("--min-p", a->min_p,
                   "leave out tokens below this share of the likeliest one's probability, in [0, 1]")
      ->check(CLI::Range(0.0, 1.0))
      ->excludes(greedy);
  options
      ->add_option("--repetition-penalty", a->repetition_penalty,
                   "above 1: tokens of the prompt and the answer become less likely; above 0, at most 10")
      ->check(above_zero("; 1 changes nothing"))
      ->check(CLI::Range(1e-6, 10.0));
  options->add_option("--seed", a->seed, "of the sampling")->check(not_negative())->excludes(greedy);
  options->add_option("--max-tokens", a->max_tokens, "longest answer")->check(above_zero());
  options->add_option("--stop", a->stop, "end an answer before this text; may be given several times")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  options->add_option("--out", a->out, "with --prompts: write the answers to this file instead of stdout");
  options->add_flag("--resume", a->resume, "with --out: keep the answers that are there and go on after them");
  options->add_flag("--json", a->json, "with --prompt: print ids and finish_reason too");
  options->footer(
      "example: drover generate --model models/smollm2 --prompt \"What is the capital of France?\" --greedy");
  return {.options = options, .run = [a](const Process& process) { return run(process, *a); }, .by_many = true};
}

}  // namespace drover
