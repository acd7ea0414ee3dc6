// What a box of GPUs carries of a model, what that costs a month, and against which APIs it pays: the answer of
// `drover plan --serve`.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "launch/planning/break_even.h"
#include "launch/planning/serving.h"

namespace drover {

struct ServingQuestion {
  std::string model_name;  // as it was asked for
  ModelOnGpus served;
  int64_t gpus = 0;  // of the box; each tp of them hold the model once
  RequestShape request;
  double between_tokens_seconds = 0.05;
  std::optional<double> tokens_a_month;  // prompts and answers; nothing: as many as the box carries
  std::string from;                      // the day on which the machines are bought
  Prices prices;
};

struct ServingPlan {
  ServedBytes bytes;
  MostUsers most;  // of one copy of the model
  int64_t copies = 0;
  double prompt_tokens_per_second = 0, answer_tokens_per_second = 0;  // of the box
  Traffic traffic;
  MachinesCost cost;
  std::vector<BreakEven> apis;
};

// usage where the GPUs do not make whole copies, where the model does not fit them, or where a request is longer than
// the model's positions; bad_recipe where the price file's box has other GPUs.
ServingPlan plan_serving(const ServingQuestion& question);

std::string print_serving(const ServingQuestion& question, const ServingPlan& plan);
nlohmann::ordered_json serving_json(const ServingQuestion& question, const ServingPlan& plan);

}  // namespace drover
