// drover doctor under a launcher: are these ranks, and what lies between them, ready for a recipe's mesh.
#pragma once
#include <string>

#include "kernels/base/error.h"
#include "launch/process.h"

namespace drover {

// Collective. One line a rank, what differs, and the speed of every axis of the recipe's mesh (without a recipe: of one
// axis of all ranks). Ends within a minute: a rank that does not answer is named (rank_hangs). missing_input where
// something is to be mended.
Exit diagnose_ranks(const Process& process, const std::string& recipe, bool json);

}  // namespace drover
