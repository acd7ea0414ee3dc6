// From which traffic on, and from when on, own or rented machines are cheaper than an API. With a traffic of T tokens a
// month in a mix of prompts (share i) and answers (share o):
//   API           p·T,  p = i·input + o·output
//   machines      n = ⌈T / (tokens a month of one box)⌉,  one box: tokens/s · utilisation · seconds of a month
//   running       n·hosting + power·(hours in which they work),  or n·rent
//   a month       n·price / life + running
//   paid back     after m months:  n·price + m·running = m·p·T,  if that comes before the boxes are worn out
//   least traffic of one box:  price / life + hosting + energy of a token·T = p·T
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "launch/planning/prices.h"

namespace drover {

struct Traffic {
  int64_t prompt_tokens = 0, answer_tokens = 0;  // of a request
  double tokens_a_month = 0;                     // both together
};

struct MachinesCost {
  int64_t boxes = 0;
  double tokens_a_month_of_a_box = 0;  // at its utilisation
  double hours_of_work = 0;            // a month, of all boxes together
  double bought = 0;                   // all boxes; 0: rented
  double running_a_month = 0;
  double a_month = 0;  // with what was bought spread over its life
  double million_tokens = 0;
};

struct BreakEven {
  ApiPrice api;
  double api_million_tokens = 0, api_a_month = 0;
  // A box that carries so many tokens a month costs as much as the API; nothing: it never does, however full it is.
  std::optional<double> least_tokens_a_month;
  // With this traffic the machines have paid for themselves after so many months and tokens; nothing: never.
  std::optional<double> months, tokens;
  std::string why_never;
};

// `gpus` are those of a box, which carries `tokens_per_second` of the mix when it is busy.
MachinesCost machines_cost(const Prices& prices, int64_t gpus, double tokens_per_second, const Traffic& traffic);
std::vector<BreakEven> break_even(const Prices& prices, int64_t gpus, double tokens_per_second, const Traffic& traffic);

// The day that comes so many months after the day `from`, 2024-07-23; usage where that is no day.
std::string day_after(const std::string& from, double months);
std::string today();

}  // namespace drover
