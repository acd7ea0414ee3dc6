// drover plan, also of `train --dry-run`.
#pragma once
#include <optional>

#include "launch/exit_code.h"
#include "launch/process.h"
#include "launch/verbs/arguments.h"
#include "launch/verbs/serving_question.h"

namespace drover {

struct PlanArguments {
  RecipeArguments recipe;
  std::optional<int> ranks;  // without: the mesh that the recipe states
  bool all = false;          // a line for every rank
  std::string calibration;   // file; empty: this machine's, where there is one
  MachineOptions machine;    // with --gpus: the best layout is looked for
  ServingOptions serving;    // with --serve instead of a recipe
};
Exit run_plan(const PlanArguments& arguments, const Process& process);

}  // namespace drover
