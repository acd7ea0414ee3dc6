// Whether a directory holds the weights that its configuration asks for, before anything is read of them.
#pragma once
#include "kernels/comm/communicator.h"
#include "model/files/model_directory.h"
#include "trainer/engine/schedule.h"

namespace drover {

// Every name and every shape; surplus tensors are only reported. bad_data naming what is missing or does not fit. Opens
// every file.
void check_weights(ModelDirectory& model);

// The same by many ranks: each knows all names, and opens only the files of its own layers (and, on an end stage, of
// embedding, last norm and head). Collective. Returns the model's fingerprint, equal on all ranks; bad_recipe where two
// ranks see different files.
std::string check_weights_together(ModelDirectory& model, LayerRange mine, Communicator& world);

}  // namespace drover
