#include "launch/verbs/sampling_options.h"

#include <limits>

#include "kernels/base/error.h"
#include "launch/verbs/arguments.h"

namespace drover {

namespace {

// CLI11 would read -1 as 2^64-1.
CLI::Validator not_negative() {
  return CLI::Validator(
      [](std::string& text) {
        return text.find('-') == std::string::npos ? std::string() : text + " is not a number from 0 on";
      },
      ">= 0");
}

}  // namespace

void add_sampling_options(CLI::App* verb, SamplingOptions& a) {
  auto* greedy =
      verb->add_flag("--greedy", a.greedy, "always the most likely token; so it is without the next four too");
  verb->add_option("--temperature", a.temperature, "above 0, at most 100")
      ->check(above_zero("; for 0, use --greedy"))
      ->check(CLI::Range(1e-6, 100.0))
      ->excludes(greedy);
  verb->add_option("--top-p", a.top_p, "in (0, 1]")->check(CLI::Range(1e-6, 1.0))->excludes(greedy);
  verb->add_option("--top-k", a.top_k, "draw from so many of the likeliest tokens")
      ->check(CLI::Range(1, std::numeric_limits<int32_t>::max()))
      ->excludes(greedy);
  verb->add_option("--min-p", a.min_p,
                   "leave out tokens below this share of the likeliest one's probability, in [0, 1]")
      ->check(CLI::Range(0.0, 1.0))
      ->excludes(greedy);
  verb->add_option("--repetition-penalty", a.repetition_penalty,
                   "above 1: tokens of the prompt and the answer become less likely; above 0, at most 10")
      ->check(above_zero("; 1 changes nothing"))
      ->check(CLI::Range(1e-6, 10.0));
  verb->add_option("--seed", a.seed, "of the sampling")->check(not_negative())->excludes(greedy);
}

Sampling sampling_of(const SamplingOptions& a) {
  if (a.seed && !a.draws()) {
    fail(Fault::usage,
         "--seed needs --temperature, --top-p, --top-k or --min-p; without them the most likely token is always "
         "taken");
  }
  return {.greedy = a.greedy || !a.draws(),
          .temperature = static_cast<float>(a.temperature.value_or(1.0)),
          .top_p = static_cast<float>(a.top_p.value_or(1.0)),
          .top_k = a.top_k.value_or(0),
          .min_p = static_cast<float>(a.min_p.value_or(0.0)),
          .seed = a.seed.value_or(42),
          .repetition_penalty = static_cast<float>(a.repetition_penalty.value_or(1.0))};
}

}  // namespace drover
