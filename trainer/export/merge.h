// A whole model out of a base and an adapter, written file by file, by one process or many, and checked before it
// counts as written.
#pragma once
#include <functional>

#include "kernels/backend.h"
#include "kernels/comm/communicator.h"
#include "model/base_weights.h"
#include "model/frozen_linear.h"
#include "trainer/export/merge_report.h"

namespace drover {

// The adapter that is merged: PEFT's configuration, and the matrix of a factor's name ("….q_proj.lora_A").
struct AdapterSource {
  const AdapterConfig& config;
  std::function<AdapterMatrix(const std::string& factor)> factor;
};

struct MergeSettings {
  // What plain numbers of the base were made into where the adapter was trained (model.weights): it is merged into what
  // these mean.
  WeightsAs trained_over = WeightsAs::as_is;
  bool keep_format = false;  // the base's fp8 or NF4 again (merge_part.h), instead of plain numbers
  int64_t max_shard_bytes = 5'000'000'000;
  Communicator* world = nullptr;  // who shares the work; nullptr: this process alone
};

// What a merged model is: the base, with a head of its own where the adapter changes a tied one alone.
ModelConfig merged_model(const AdapterConfig& adapter, const BaseWeights& base);

// Looks at the whole directory, last; what it finds stands in the report.
using CheckMerged = std::function<void(const fs::path& directory, MergeReport& report)>;

// W + scale·B·A in fp32, rounded once to the type that the base stores the tensor in (f32, f16, bf16; else bad_data);
// everything else is copied, and `more` and merge_report.json written. What was merged is compared number by number
// with sums in fp64, each within its own rounding, and what is read back with what was written (corruption); a sum that
// the type cannot hold is bad_data. Then `check` sees the directory, and only when it does not throw does the model
// appear under its name.
//
// Collective over settings.world, whose processes share the files, which are kept where it ends early (dealt_model.h).
MergeReport merge(const AdapterSource& adapter, BaseWeights& base, const fs::path& out, Backend& backend,
                  const MoreFiles& more, const CheckMerged& check, const MergeSettings& settings = {});

}  // namespace drover
