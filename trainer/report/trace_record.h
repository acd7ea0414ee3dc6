// A traced step: trace/step-N.json of a run, in the form of Chrome's traces. Of its events those of the thread
// "actions" are read, what each rank's pipeline stage did when.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/base/file.h"

namespace drover {

struct TraceSpan {
  int rank = 0;
  double begin = 0, end = 0;  // seconds from the step's first action on
  std::string name;           // "F0", "B0", "<F1": forward and backward of a micro-batch, a receive or send
};

struct TraceStep {
  int64_t step = 0;
  std::vector<TraceSpan> spans;  // by rank, then by time
  std::vector<int> ranks;        // ascending
  double seconds = 0;            // from the first action to the last

  double idle(int rank) const;  // share of `seconds` in which the rank computed nothing: messages are no computing
  double idle() const;          // mean over the ranks
};

bool is_message(const std::string& action);
bool is_backward(const std::string& action);

// bad_data where the text is no trace, or has no action.
TraceStep parse_trace(const std::string& text, int64_t step, const std::string& where);

// The steps that DIR/step-N.json stand for, ascending.
std::vector<std::pair<int64_t, fs::path>> trace_files(const fs::path& directory);

}  // namespace drover
