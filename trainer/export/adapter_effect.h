// How much an adapter changes a model.
#pragma once
#include "model/base_weights.h"

namespace drover {

// ‖ΔW‖, the Frobenius norm of scale·B·A over all its linears, in fp64. A linear's is the sum over AAᵀ ∘ BᵀB, so that no
// product of a weight's size is made. bad_data where it is 0 and the adapter's own weights, if any, are the base's: it
// has no effect.
double effect_of(const AdapterFile& adapter, const fs::path& base);

// The same, and a line that names the adapter with its size and effect.
void say_effect(const fs::path& adapter, const fs::path& base);

}  // namespace drover
