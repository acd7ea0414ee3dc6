// The comparison of an adapter that is exported from a checkpoint: by one process, with a model in memory at a time.
#pragma once
#include "trainer/export/comparison.h"
#include "trainer/run/checkpoint.h"
#include "trainer/setup/inputs.h"

namespace drover {

struct ExportedAdapter {
  const Checkpoint& checkpoint;
  const Recipe& recipe;  // of the run
  fs::path run;          // whose token stores hold the documents
  fs::path directory;    // the adapter, written
};

// In the recipe's train.dtype, on the CPU: the checkpoint's parameters, the files read back, the same by the generation
// path, and merged. What cannot be compared is absent with the reason: data or base are not there or are others, or
// this machine has not the memory. Else errors as their parts have them.
Comparison compare_export(const ExportedAdapter& adapter, ModelDirectory& base, int threads);

}  // namespace drover
