#include "launch/verbs/serving_question.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "launch/verbs/arguments.h"
#include "launch/verbs/run_recipe.h"
#include "trainer/setup/inputs.h"

namespace drover {

namespace {

constexpr double kMost = 1e6;         // tokens of a request, GPUs
constexpr double kMostTokens = 1e18;  // a month

CLI::Validator at_most(double limit) {
  return CLI::Validator(
      [limit](std::string& text) {
        double value = 0;
        const bool fits = CLI::detail::lexical_cast(text, value) && value <= limit;
        return fits ? std::string() : fmt::format("{} is out of range; allowed: at most {:g}", text, limit);
      },
      "");
}

}  // namespace

void add_serving_options(CLI::App* verb, ServingOptions& o) {
  CLI::Option* serve = verb->add_flag("--serve", o.serve, "what serving a model carries and costs, instead of a run");
  const auto add = [&](const char* name, auto& value, const char* help) {
    return verb->add_option(name, value, help)->needs(serve);
  };
  add("--model", o.model, "a model's directory, or a shape known by name such as llama3.1-405b");
  add("--gpu", o.gpu, "the GPU, by its name in the table of machines");
  add("--gpus", o.gpus, "GPUs of the box")->check(above_zero())->check(at_most(kMost))->capture_default_str();
  add("--tp", o.tp, "GPUs that hold the model together (default: all of the box, up to a node)")
      ->check(above_zero())
      ->check(at_most(kMost));
  add("--weights", o.weights, "what the blocks' linears are held in")
      ->check(CLI::IsMember({"bf16", "fp8", "nf4"}))
      ->capture_default_str();
  add("--prompt-tokens", o.prompt_tokens, "of a request")->check(above_zero())->check(at_most(kMost));
  add("--answer-tokens", o.answer_tokens, "of its answer")->check(above_zero())->check(at_most(kMost));
  add("--between-tokens-ms", o.between_tokens_ms, "what an answer's tokens may be apart, on average")
      ->check(above_zero())
      ->capture_default_str();
  add("--tokens-a-month", o.tokens_a_month, "of prompts and answers (default: as many as the box carries)")
      ->check(above_zero())
      ->check(at_most(kMostTokens));
  add("--price", o.price, "a file of prices (default: GPUs rented at the table's price, no APIs)");
  add("--hardware", o.hardware, "a table of machines in the place of configs/planning/hardware.yaml");
  add("--from", o.from, "the day on which machines are bought, as 2024-07-23 (default: today)");
}

ServingQuestion question_of(const ServingOptions& o) {
  const auto needed = [](bool there, const char* option, const char* what) {
    if (!there) fail(Fault::usage, "drover plan --serve needs {}: {}", option, what);
  };
  needed(!o.model.empty(), "--model", "a directory or a known shape");
  needed(!o.gpu.empty(), "--gpu", "a name such as h100");
  needed(o.prompt_tokens > 0, "--prompt-tokens", "the length of a request's prompt");
  needed(o.answer_tokens > 0, "--answer-tokens", "the length of its answer");
  ServingQuestion q = {.model_name = o.model, .gpus = o.gpus, .request = {o.prompt_tokens, o.answer_tokens}};
  const std::optional<Hardware> own = o.hardware.empty() ? std::nullopt : std::optional(read_hardware(o.hardware));
  const Hardware& hardware = own ? *own : shipped_hardware();
  q.served.machine = machine(hardware, o.gpu);
  q.served.tp = o.tp.value_or(std::min(o.gpus, q.served.machine.gpus_a_node));
  require(read_word(o.weights, q.served.weights), "the option's words are those of the format");
  Recipe recipe;
  recipe.model.path = model_directory(o.model);
  q.served.config = model_config_of(recipe, ShapeFrom::directory_or_name);
  q.between_tokens_seconds = o.between_tokens_ms / 1e3;
  q.tokens_a_month = o.tokens_a_month;
  q.from = o.from.empty() ? today() : day_after(o.from, 0);
  q.prices = o.price.empty() ? rented(hardware, q.served.machine) : read_prices(o.price);
  return q;
}

}  // namespace drover
