// drover plan --serve without --gpu: how fast this machine answers one request, at the rates that were measured here.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "configs/choices.h"
#include "launch/planned_machine.h"
#include "model/config.h"

namespace drover {

struct AnswerQuestion {
  std::string model_name;  // as it was asked for
  ModelConfig model;
  WeightFormat weights = WeightFormat::bf16;
  int64_t prompt_tokens = 0, answer_tokens = 0;
};

struct AnswerTime {
  double first_token_seconds = 0;
  double tokens_per_second = 0;  // of the answer behind its first token; 0 where it has no other
};

AnswerTime answer_time(const AnswerQuestion& question, const PlannedMachine& machine);
std::string print_answer(const AnswerQuestion& question, const AnswerTime& time, const PlannedMachine& machine);
nlohmann::ordered_json answer_json(const AnswerTime& time, const PlannedMachine& machine);

}  // namespace drover
