#include "launch/verbs/generate_options.h"

#include <algorithm>
#include <ranges>

#include "launch/verbs/arguments.h"
#include "launch/verbs/run_recipe.h"
#include "trainer/setup/inputs.h"

namespace drover {

namespace fs = std::filesystem;

Adapters adapters_of(const GenerateOptions& a) {
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
      adapters.of_all = model_directory(text);
    } else if (end == 0 || end + 1 == text.size()) {
      fail(Fault::usage, "--adapter {} is neither DIR nor NAME=DIR", text);
    } else if (!adapters.named.emplace(text.substr(0, end), model_directory(text.substr(end + 1))).second) {
      fail(Fault::usage, "--adapter gives the name {} twice", text.substr(0, end));
    }
  }
  if (!adapters.named.empty() && a.prompts.empty()) {
    fail(Fault::usage,
         "--adapter NAME=DIR needs --prompts, whose rows choose by name; with --prompt give --adapter DIR");
  }
  return adapters;
}

Recipe recipe_of(const GenerateOptions& a) {
  if (a.model.empty()) fail(Fault::usage, "generate needs --model DIR");
  if (a.prompt.has_value() == !a.prompts.empty())
    fail(Fault::usage, "generate needs either --prompt TEXT or --prompts FILE.jsonl");
  if (a.prompts.empty() && !a.out.empty())
    fail(Fault::usage, "--out needs --prompts FILE.jsonl; the answer to a --prompt is printed");
  if (!a.prompts.empty() && a.json)
    fail(Fault::usage, "--json needs --prompt; answers to --prompts are JSON lines anyway");
  if (!a.out.empty() && same_file(a.out, a.prompts))
    fail(Fault::usage, "--out {} is the file of the prompts itself; name another file", a.out);
  sampling_of(a.sampling);
  if (std::ranges::count(a.stop, std::string()) > 0)
    fail(Fault::usage, "--stop needs a text; an empty one would end every answer at once");
  if (a.resume && a.out.empty()) fail(Fault::usage, "--resume needs --out FILE: it keeps the answers that are there");
  constexpr std::string_view kAllowed[] = {
      "device",      "model.tokenizer",    "model.weights", "train.dtype",        "parallel.tp",
      "parallel.pp", "parallel.transport", "data.template", "data.template_date", "memory.weights"};
  Recipe recipe = read_overrides(a.overrides, kAllowed);
  recipe.model.path = model_directory(a.model);
  return recipe;
}

std::string command_line(const Recipe& recipe, const GenerateOptions& a) {
  const Sampling s = sampling_of(a.sampling);
  return fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}", resolved_recipe({recipe, {}}),
                     fmt::join(a.overrides, " "), fmt::join(a.adapters, " "), a.prompt.value_or(""), a.prompts, a.out,
                     a.raw, a.special, a.max_tokens, s.greedy, s.temperature, s.top_p, s.top_k, s.min_p,
                     s.repetition_penalty, s.seed, fmt::join(a.stop, "\n"));
}

void add_generate_options(CLI::App* verb, GenerateOptions& a) {
  verb->add_option("--model", a.model, "the model's directory");
  verb->add_option("--adapter", a.adapters,
                   "a PEFT adapter's directory, for all prompts; or NAME=DIR, several times, for the rows of --prompts "
                   "that say \"adapter\": NAME (others are the base model's)")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  verb->add_option("overrides", a.overrides,
                   "section.key=value, for example train.dtype=bf16 (default: fp32 where the model takes less than "
                   "half of the free memory)");
  verb->add_option("--prompt", a.prompt, "the prompt");
  verb->add_option("--prompts", a.prompts, "JSONL rows of {\"prompt\"} or {\"messages\"}; one answer a line, in order");
  auto* raw = verb->add_flag(
      "--raw", a.raw, "no chat template: the text in the frame of the tokenizer (BOS, EOS), as transformers has it");
  verb->add_flag("--special", a.special,
                 "prompts are rendered already: no chat template, and what spells a control token is one")
      ->excludes(raw);
  add_sampling_options(verb, a.sampling);
  verb->add_option("--max-tokens", a.max_tokens, "longest answer")->check(above_zero());
  verb->add_option("--stop", a.stop, "end an answer before this text; may be given several times")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  verb->add_option("--out", a.out, "with --prompts: write the answers to this file instead of stdout");
  verb->add_flag("--resume", a.resume, "with --out: keep the answers that are there and go on after them");
  verb->add_flag("--json", a.json, "with --prompt: print ids and finish_reason too");
  verb->footer("example: drover generate --model models/smollm2 --prompt \"What is the capital of France?\" --greedy");
}

}  // namespace drover
