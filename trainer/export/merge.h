// A whole model out of a base and an adapter, written tensor by tensor and checked before it counts as written.
#pragma once
#include <functional>

#include "kernels/backend.h"
#include "model/base_weights.h"

namespace drover {

// The adapter that is merged: PEFT's configuration, and the matrix of a factor's name ("….q_proj.lora_A").
struct AdapterSource {
  const AdapterConfig& config;
  std::function<AdapterMatrix(const std::string& factor)> factor;
};

// What a merged model is: the base, with a head of its own where the adapter changes a tied one alone.
ModelConfig merged_model(const AdapterConfig& adapter, const BaseWeights& base);

// W + scale·B·A in fp32, rounded once to the type that the base stores the tensor in (f32, f16, bf16; else bad_data);
// everything else is copied, and `more` written. What was merged is compared number by number with sums in fp64, each
// within its own rounding, and what is read back with what was written (corruption); a sum that the type cannot hold is
// bad_data. Then `check` sees the directory, and only when it does not throw does the model appear under its name.
void merge(const AdapterSource& adapter, BaseWeights& base, const fs::path& out, Backend& backend,
           const MoreFiles& more, const std::function<void(const fs::path& staged)>& check);

}  // namespace drover
