// Adapters and merged models out of checkpoints, each read back and checked before it counts as written.
#pragma once
#include <functional>

#include "model/adapter.h"
#include "model/files/model_directory.h"
#include "model/files/peft.h"
#include "trainer/run/checkpoint.h"

namespace drover {

// PEFT's adapter directory from a checkpoint; read back: same keys and values, finite. bad_data where every B is zero:
// it would change nothing.
void export_adapter(const Checkpoint& checkpoint, DType dtype, const fs::path& out);

// Fills an adapter's parameters (and compute copies) from a PEFT directory; bad_data naming the tensor that is missing,
// surplus or of another shape.
void load_adapter(const fs::path& directory, const ModelConfig& model, AdapterSet& adapter);

// A whole model: W + scale·B·A in fp32 from the masters, rounded once to the base's dtype, tensor by tensor; everything
// else is copied. On a probe x of each adapted linear the merged weight gives what base and adapter give together
// (corruption); read back, every tensor is there and finite; then `check` sees the directory, and only when it does not
// throw does the model appear under its name. bad_data where every B is zero.
void export_merged(const Checkpoint& checkpoint, ModelDirectory& base, const fs::path& out, Backend& backend,
                   const std::function<void(const fs::path& staged)>& check);

}  // namespace drover
