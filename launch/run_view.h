// What `drover watch` shows of a run: a page of text for people, or JSON.
#pragma once
#include <string>

#include "kernels/base/json.h"
#include "trainer/run/seen_run.h"

namespace drover {

// At most `rows` lines (at least 1), each of at most `columns` characters (at least 20), the last without its end.
// Wanted first are who works, how far it is and the loss; the curve takes what is left, where that is enough.
// `name`: the run's directory, as it was given.
std::string run_page(const SeenRun& run, const std::string& name, int64_t columns, int64_t rows);

// What kept a look from its end, in the page's place and size; it may pass.
std::string trouble_page(const std::string& name, const std::string& trouble, int64_t columns, int64_t rows);

// {"run", "state", "host", "pid", "step", "total_steps", "seconds_left", "quiet_seconds", "loss", "grad_norm",
// "learning_rate", "tokens_per_second", "peak_bytes", "validations": [{"step", "validation_loss"}], "checkpoint"}; null
// where something is not known. `state`: a word of RunLife.
OrderedJson run_json(const SeenRun& run, const std::string& name);

}  // namespace drover
