// The options of `drover plan` that name machines and prices, those of `--serve`, and the question that they ask.
#pragma once
#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "launch/answer_time.h"
#include "launch/planning/serving_plan.h"

namespace drover {

// Of plans of runs too.
struct MachineOptions {
  std::string gpu, gpus, price, hardware;
};
void add_machine_options(CLI::App* verb, MachineOptions& options);
// The machine of that name with its table: the program's own, or --hardware's.
Machine machine_of(const MachineOptions& options);

struct ServingOptions {
  bool serve = false;
  std::string model, weights = "bf16", from;
  int64_t prompt_tokens = 0, answer_tokens = 0;
  std::optional<int64_t> tp;
  std::optional<double> tokens_a_month;
  std::optional<double> between_tokens_ms;
};

// All but --serve stand with --serve only.
void add_serving_options(CLI::App* verb, ServingOptions& options);

// usage where an option is missing or names nothing; what the table of machines and the price file are refused for.
AnswerQuestion answer_question_of(const ServingOptions& options, const MachineOptions& machine);  // without --gpu
ServingQuestion question_of(const ServingOptions& options, const MachineOptions& machine);

}  // namespace drover
