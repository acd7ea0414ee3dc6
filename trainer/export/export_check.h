// Whether an exported adapter computes what the trained one does.
#pragma once
#include "trainer/engine/engine.h"
#include "trainer/export/comparison.h"

namespace drover {

class TokenStore;

// Collective. `directory` holds the adapter as the engine's replica has it; it is loaded into the replica between two
// evaluations of the documents, and then scored by the generation path, in memory that training leaves free between two
// steps. Fills reloaded and served, or why they are absent; rows, step and adapter_dtype are the caller's.
Comparison compare_trained(Engine& engine, const TokenStore& documents, const fs::path& directory);

}  // namespace drover
