// drover chat: a conversation in the terminal, with a model and its adapters.
#include <unistd.h>

#include <iostream>
#include <ranges>

#include "data/prompts.h"
#include "kernels/base/append_file.h"
#include "kernels/base/log.h"
#include "launch/open_device.h"
#include "launch/verbs/inference_setup.h"
#include "launch/verbs/run_recipe.h"
#include "launch/verbs/sampling_options.h"
#include "launch/verbs/verb.h"
#include "model/generation/answers.h"
#include "trainer/export/adapter_effect.h"
#include "trainer/generation/inference.h"
#include "trainer/generation/manner.h"
#include "trainer/generation/other_base.h"
#include "trainer/run/stop_signal.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/inputs.h"

namespace drover {

namespace {

struct Options {
  std::string model, system;
  std::vector<std::string> adapters, overrides;
  SamplingOptions sampling;
  int64_t max_tokens = 1024;
};

constexpr const char* kHelp =
    "/adapter NAME  answer with this adapter from now on; /base: without one\n"
    "/reset         forget the conversation\n"
    "/system TEXT   set what the model is; the conversation is forgotten\n"
    "/save FILE     append the conversation to FILE as a row of training data\n"
    "/help, /exit   this list; the end (Ctrl-D too). Ctrl-C stops an answer.\n";

class Chat {
 public:
  Chat(const Options& o, const Recipe& recipe, const NamedAdapters& adapters, Inference& inference)
      : options_(o),
        adapters_(adapters),
        inference_(inference),
        tokenizer_(Tokenizer::open(tokenizer_directory(recipe))),
        date_(recipe.data.template_date) {
    const Speaker base{recipe, inference.config(), tokenizer_};
    manners_.push_back(manner_of(base, recipe.model.path));
    for (const auto& [name, directory] : adapters) manners_.push_back(manner_of_adapter(base, name, directory));
    if (!adapters.empty()) speaker_ = 1;
    forget(o.system);
  }

  // Until the end of the input, or /exit.
  void run() {
    const bool person = isatty(STDIN_FILENO) == 1;
    if (person) say(fmt::format("{} answers. /help for what else can be said.\n", name()));
    std::string line;
    while (true) {
      if (person) say("\n> ");
      release_stop_signals();
      const bool more = static_cast<bool>(std::getline(std::cin, line));
      hold_stop_signals();
      if (!more || line == "/exit") break;
      if (line.empty()) continue;
      if (line.starts_with("/")) {
        obey(line);
      } else {
        answer(line);
      }
    }
    if (person) say("\n");
  }

 private:
  std::string name() const { return speaker_ == 0 ? "the base model" : adapters_[speaker_ - 1].first; }
  static void say(const std::string& text) { std::cout << text << std::flush; }

  void forget(const std::string& system) {
    dialog_.clear();
    if (!system.empty()) dialog_.push_back({"system", system});
  }

  void obey(const std::string& line) {
    const size_t blank = line.find(' ');
    const std::string word = line.substr(0, blank), rest = blank == std::string::npos ? "" : line.substr(blank + 1);
    if (word == "/reset") {
      forget(dialog_.empty() || dialog_.front().role != "system" ? "" : dialog_.front().content);
    } else if (word == "/system") {
      forget(rest);
    } else if (word == "/base") {
      speaker_ = 0;
      say("the base model answers\n");
    } else if (word == "/adapter") {
      choose(rest);
    } else if (word == "/save") {
      save(rest);
    } else {
      if (word != "/help") say(fmt::format("there is no {}\n", word));
      say(kHelp);
    }
  }

  void choose(const std::string& wanted) {
    if (adapters_.empty()) return say("there are no adapters; --adapter NAME=DIR gives some\n");
    const auto found = std::ranges::find(adapters_, wanted, &NamedAdapters::value_type::first);
    if (found == adapters_.end()) {
      return say(fmt::format("there is no adapter {}; those of --adapter are: {}\n", wanted,
                             fmt::join(std::views::keys(adapters_), ", ")));
    }
    speaker_ = static_cast<size_t>(found - adapters_.begin()) + 1;
    say(fmt::format("{} answers\n", wanted));
  }

  void save(const std::string& file) {
    if (file.empty()) return say("/save needs a file\n");
    if (dialog_.empty() || dialog_.back().role != "assistant") return say("there is nothing to save yet\n");
    try {
      const Prompt prompt{.dialog = {dialog_.begin(), dialog_.end() - 1}};
      AppendFile(file, AppendFile::Begin::keep).write(answered_row(prompt, dialog_.back().content) + "\n");
      say(fmt::format("appended to {}\n", file));
    } catch (const Error& error) {
      say(fmt::format("{}\n", error.what()));
    }
  }

  void answer(const std::string& text) {
    dialog_.push_back({"user", text});
    const Manner& manner = manners_[speaker_];
    std::string words;
    try {
      const std::vector<int32_t> ids =
          prompt_ids({.dialog = dialog_, .where = "this conversation"}, tokenizer_, manner.chat, date_);
      words = answer_to(ids, manner);
    } catch (const Error& error) {
      if (error.fault() != Fault::bad_data && error.fault() != Fault::non_finite) throw;
      dialog_.pop_back();
      return say(fmt::format("{}\n", error.what()));
    }
    dialog_.push_back({"assistant", words});
  }

  // Prints the answer as it grows.
  std::string answer_to(const std::vector<int32_t>& ids, const Manner& manner) {
    const bool adapted = speaker_ > 0;
    StreamDecoder stream(tokenizer_);
    std::string words;
    const auto more = [&](const std::string& text) {
      words += text;
      say(text);
    };
    const auto grows = [&](size_t, const Answer& answer) {
      more(stream.push(answer.ids.back()));
      return take_held_interrupt();
    };
    const Request request{.ids = ids,
                          .sampling = sampling_of(options_.sampling),
                          .stop_ids = manner.stop_ids,
                          .max_tokens = options_.max_tokens,
                          .number = answers_++,
                          .slot = adapted ? inference_.slot_of(speaker_ - 1) : kBaseModel};
    const Answer answer = answer_all(inference_.batcher(), {request}, {.stops = grows}).front();
    if (answer.error) throw *answer.error;
    more(stream.finish());
    say("\n");
    return words;
  }

  const Options& options_;
  const NamedAdapters& adapters_;
  Inference& inference_;
  Tokenizer tokenizer_;
  std::string date_;
  std::vector<Manner> manners_;  // the base's first
  size_t speaker_ = 0;           // 0: the base; else adapters_[speaker_ - 1]
  std::vector<Message> dialog_;
  uint64_t answers_ = 0;
};

Exit run(const Process& process, const Options& o) {
  hold_stop_signals();
  if (o.model.empty()) fail(Fault::usage, "chat needs --model DIR");
  constexpr std::string_view kAllowed[] = {"device",        "model.tokenizer",    "model.weights", "train.dtype",
                                           "data.template", "data.template_date", "memory.weights"};
  Recipe recipe = read_overrides(o.overrides, kAllowed);
  recipe.model.path = model_directory(o.model);
  const NamedAdapters adapters = named_adapters(o.adapters);
  choose_inference_dtype(recipe, o.overrides, process);
  InferenceSettings settings{.model = recipe.model.path,
                             .dtype = dtype_of(recipe.train.dtype),
                             .weights = weights_as(recipe.model.weights),
                             .streamed = recipe.memory.weights == WeightHome::host};
  for (const auto& [name, directory] : adapters) {
    say_effect(directory, recipe.model.path);
    settings.named_adapters.push_back(directory);
  }
  settings.batcher.sequences = 1;
  settings.batcher.dearest = sampling_of(o.sampling);
  settings.capacity_tokens = read_model_config(recipe.model.path).max_positions;
  settings.cache.share = 0.8;
  const auto open = [&](const Mesh& host) { return open_device(host, recipe, process); };
  warn_of_other_base(settings.named_adapters, recipe, make_self_mesh(), open);
  Inference inference(settings, make_self_mesh(), open);
  Chat(o, recipe, adapters, inference).run();
  return Exit::done;
}

}  // namespace

Verb chat_verb(CLI::App& app) {
  const auto o = std::make_shared<Options>();
  CLI::App* options = app.add_subcommand("chat", "a conversation in the terminal");
  options->add_option("--model", o->model, "the model's directory");
  options->add_option("--adapter", o->adapters, "NAME=DIR: a PEFT adapter; several times, the first one answers")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  options->add_option("overrides", o->overrides, "section.key=value, for example train.dtype=bf16");
  options->add_option("--system", o->system, "what the model is");
  add_sampling_options(options, o->sampling);
  options->add_option("--max-tokens", o->max_tokens, "longest answer")->check(above_zero())->capture_default_str();
  options->footer("example: drover chat --model models/smollm2 --adapter support=runs/support/adapter");
  return {.options = options, .run = [o](const Process& process) { return run(process, *o); }};
}

}  // namespace drover
