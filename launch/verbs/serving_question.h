// The options of `drover plan --serve`, and the question that they ask.
#pragma once
#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "launch/planning/serving_plan.h"

namespace drover {

struct ServingOptions {
  bool serve = false;
  std::string model, gpu, weights = "bf16", price, hardware, from;
  int64_t gpus = 1, prompt_tokens = 0, answer_tokens = 0;
  std::optional<int64_t> tp;
  std::optional<double> tokens_a_month;
  double between_tokens_ms = 50;
};

// All but --serve stand with --serve only.
void add_serving_options(CLI::App* verb, ServingOptions& options);

// usage where an option is missing or names nothing; what the table of machines and the price file are refused for.
ServingQuestion question_of(const ServingOptions& options);

}  // namespace drover
