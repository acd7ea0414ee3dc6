// Who sees what the engine does in a step, part by part: traces, and plans of time.
#pragma once
#include <span>

#include "trainer/engine/schedule.h"

namespace drover {

enum class WorkKind : uint8_t {
  actions,  // of the schedule: computed together, or messages of one group
  sum,      // of gradients and losses over the ranks
  update,   // of the adapter
};

struct Work {
  WorkKind kind = WorkKind::actions;
  std::span<const Action> actions;  // of a schedule that outlives the call; empty but for `actions`
};

// Called on the thread that enqueues, before and after; the device may be behind.
class WorkObserver {
 public:
  virtual ~WorkObserver() = default;
  virtual void begin(const Work& work) = 0;
  virtual void end(const Work& work) = 0;  // not after work that threw
};

}  // namespace drover
