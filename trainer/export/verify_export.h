// The last check of a merged model: it is run, and so is what it was merged from.
#pragma once
#include <optional>

#include "kernels/base/file.h"
#include "kernels/tensor.h"
#include "model/frozen_linear.h"

namespace drover {

struct MergedCheck {
  double difference = 0;  // ‖merged − adapted‖ / ‖adapted‖ over the logits of a made-up prompt, both computed in fp32
  double effect = 0;  // ‖base − adapted‖ / ‖adapted‖, for comparison
};

// Runs three models one after the other on this process: base, base with adapter, merged. `weights`: what the base is
// held in, as the adapter was trained over it. Nothing where this machine, or what this process may still take of it,
// has no room for the base in fp32.
std::optional<MergedCheck> check_merged_logits(const fs::path& base, WeightsAs weights, const fs::path& adapter,
                                               const fs::path& merged, int threads);

}  // namespace drover
