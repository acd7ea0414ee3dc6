// A small made-up model directory (weights drawn by a seed, a tokenizer of single bytes, ChatML) for trying the
// machinery where no real model can be had. It knows nothing.
#pragma once
#include "kernels/base/file.h"

namespace drover {

void make_tiny_model(const fs::path& directory, uint64_t seed);  // where none is there already

}  // namespace drover
