// How much an adapter changes a model.
#pragma once
#include <map>

#include "model/base_weights.h"

namespace drover {

// ‖ΔW‖² of each linear by its module path, in fp64. It is the sum over AAᵀ ∘ BᵀB, so that no product of a weight's size
// is made.
std::map<std::string, double> squared_effects(const AdapterFile& adapter);

// ‖ΔW‖, the Frobenius norm of scale·B·A over all its linears. bad_data where it is 0 and the adapter's own weights, if
// any, are the base's: it has no effect.
double effect_of(const AdapterFile& adapter, const fs::path& base);

// The same, and a line that names the adapter with its size and effect.
void say_effect(const fs::path& adapter, const fs::path& base);

}  // namespace drover
