// A step of all pipeline stages on one clock: each does its works in their order, a message is there when its sender
// has come to it and it has travelled, and who receives waits for it. Senders do not wait. Behind the last action all
// stages meet for the sums, and update.
#pragma once
#include <functional>

#include "trainer/planning/step_record.h"

namespace drover {

struct TimelineEvent {
  int stage = 0;
  Action action{};            // the first of those that it does together
  double begin = 0, end = 0;  // seconds
};

struct Timeline {
  double seconds = 0;   // of the step
  double pipeline = 0;  // of that: from the first action to the last
  double bubble = 0;    // share of the stages' time in the pipeline in which they wait for one another's messages
  double exposed = 0;   // seconds that sums and gathers hold a stage up, of the one that they hold up least
  std::vector<TimelineEvent> events;  // of computing
};

// `stages`: a record of each, of the same step. message_seconds(bytes): of one between two stages.
Timeline timeline_of(const std::vector<StepRecord>& stages, const std::function<double(int64_t)>& message_seconds);

}  // namespace drover
