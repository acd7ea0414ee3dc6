#include "launch/verbs/serving_question.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "launch/plan_search.h"
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

int64_t box_of(const std::string& text) {
  const std::vector<int> counts = gpu_counts(text.empty() ? "1" : text);
  if (counts.size() > 1) fail(Fault::usage, "--gpus {}: with --serve it is the number of GPUs of one box", text);
  return counts.front();
}

}  // namespace

void add_machine_options(CLI::App* verb, MachineOptions& o) {
  verb->add_option("--gpu", o.gpu, "the GPU, by its name in the table of machines");
  verb->add_option("--gpus", o.gpus,
                   "with --serve the GPUs of the box; with a recipe how many to look for the best layout on: 8, or "
                   "8..128");
  verb->add_option("--price", o.price, "a file of prices; with --serve the default is GPUs at the table's price");
  verb->add_option("--hardware", o.hardware, "a table of machines in the place of configs/planning/hardware.yaml");
}

Machine machine_of(const MachineOptions& o) {
  return machine(o.hardware.empty() ? shipped_hardware() : read_hardware(o.hardware), o.gpu);
}

void add_serving_options(CLI::App* verb, ServingOptions& o) {
  CLI::Option* serve = verb->add_flag("--serve", o.serve, "what serving a model carries and costs, instead of a run");
  const auto add = [&](const char* name, auto& value, const char* help) {
    return verb->add_option(name, value, help)->needs(serve);
  };
  add("--model", o.model, "a model's directory, or a shape known by name such as llama3.1-405b");
  add("--tp", o.tp, "GPUs that hold the model together (default: all of the box, up to a node)")
      ->check(above_zero())
      ->check(at_most(kMost));
  add("--weights", o.weights, "what the blocks' linears are held in")
      ->check(CLI::IsMember({"bf16", "fp8", "nf4"}))
      ->capture_default_str();
  add("--prompt-tokens", o.prompt_tokens, "of a request")->check(above_zero())->check(at_most(kMost));
  add("--answer-tokens", o.answer_tokens, "of its answer")->check(above_zero())->check(at_most(kMost));
  add("--between-tokens-ms", o.between_tokens_ms, "what an answer's tokens may be apart, on average (default: 50)")
      ->check(above_zero());
  add("--tokens-a-month", o.tokens_a_month, "of prompts and answers (default: as many as the box carries)")
      ->check(above_zero())
      ->check(at_most(kMostTokens));
  add("--from", o.from, "the day on which machines are bought, as 2024-07-23 (default: today)");
}

namespace {

void check_request(const ServingOptions& o) {
  const auto needed = [](bool there, const char* option, const char* what) {
    if (!there) fail(Fault::usage, "drover plan --serve needs {}: {}", option, what);
  };
  needed(!o.model.empty(), "--model", "a directory or a known shape");
  needed(o.prompt_tokens > 0, "--prompt-tokens", "the length of a request's prompt");
  needed(o.answer_tokens > 0, "--answer-tokens", "the length of its answer");
}

ModelConfig model_of(const std::string& name) {
  Recipe recipe;
  recipe.model.path = model_directory(name);
  return model_config_of(recipe, ShapeFrom::directory_or_name);
}

WeightFormat format_of(const ServingOptions& o) {
  WeightFormat format{};
  require(read_word(o.weights, format), "the option's words are those of the format");
  return format;
}

}  // namespace

AnswerQuestion answer_question_of(const ServingOptions& o, const MachineOptions& m) {
  check_request(o);
  if (!m.gpus.empty() || !m.price.empty() || !m.hardware.empty() || o.tokens_a_month || o.tp || o.between_tokens_ms ||
      !o.from.empty()) {
    fail(Fault::usage,
         "--gpus, --tp, --price, --hardware, --tokens-a-month, --between-tokens-ms and --from are of a box of GPUs: "
         "name "
         "its GPU (--gpu h100); "
         "without --gpu one request on this machine is planned");
  }
  return {.model_name = o.model,
          .model = model_of(o.model),
          .weights = format_of(o),
          .prompt_tokens = o.prompt_tokens,
          .answer_tokens = o.answer_tokens};
}

ServingQuestion question_of(const ServingOptions& o, const MachineOptions& m) {
  check_request(o);
  ServingQuestion q = {.model_name = o.model, .gpus = box_of(m.gpus), .request = {o.prompt_tokens, o.answer_tokens}};
  const std::optional<Hardware> own = m.hardware.empty() ? std::nullopt : std::optional(read_hardware(m.hardware));
  const Hardware& hardware = own ? *own : shipped_hardware();
  q.served.machine = machine(hardware, m.gpu);
  q.served.tp = o.tp.value_or(std::min(q.gpus, q.served.machine.gpus_a_node));
  q.served.weights = format_of(o);
  q.served.config = model_of(o.model);
  q.between_tokens_seconds = o.between_tokens_ms.value_or(50) / 1e3;
  q.tokens_a_month = o.tokens_a_month;
  q.from = o.from.empty() ? today() : day_after(o.from, 0);
  q.prices = m.price.empty() ? rented(hardware, q.served.machine) : read_prices(m.price);
  return q;
}

}  // namespace drover
