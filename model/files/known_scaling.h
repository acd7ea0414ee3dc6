// How the released files of a model that is known by name scale a tensor.
#pragma once
#include <optional>
#include <string>

#include "model/files/stored_scaling.h"

namespace drover {

// Nothing where the tensor is stored as plain numbers, or the name is not known.
std::optional<StoredScaling> known_scaling(const std::string& model, int64_t layer, const std::string& tensor);

}  // namespace drover
