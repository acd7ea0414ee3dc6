// The last check of a merged model: it is run, and so is what it was merged from.
#pragma once
#include <optional>

#include "kernels/base/file.h"
#include "kernels/tensor.h"

namespace drover {

struct MergedCheck {
  double difference = 0;  // ‖merged − adapted‖ / ‖adapted‖ over the logits of a made-up prompt, both computed in fp32
  double effect = 0;  // ‖base − adapted‖ / ‖adapted‖, for comparison
};

// Runs three models one after the other on this process: base, base with adapter, merged. Nothing where this machine
// has no memory for the base in fp32.
std::optional<MergedCheck> check_merged_logits(const fs::path& base, const fs::path& adapter, const fs::path& merged,
                                               int threads);

}  // namespace drover
