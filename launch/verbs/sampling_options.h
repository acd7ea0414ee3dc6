// How tokens are chosen, as command lines say it.
#pragma once
#include <CLI/CLI.hpp>
#include <optional>

#include "model/generation/sampling.h"

namespace drover {

struct SamplingOptions {
  bool greedy = false;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
  std::optional<uint64_t> seed;
  // Whether tokens are drawn; else the likeliest is taken.
  bool draws() const { return temperature || top_p || top_k || min_p; }
};

void add_sampling_options(CLI::App* verb, SamplingOptions& options);

// Fault::usage for a seed where nothing is drawn.
Sampling sampling_of(const SamplingOptions& options);

}  // namespace drover
