// The time of a step, part by part, as a rank's real step on Count spends it at given rates: its computing one op after
// the other, sums over tp that overlap with it, and the bytes that it sends to other stages.
#pragma once
#include <map>

#include "kernels/comm/count.h"
#include "kernels/op_call.h"
#include "trainer/engine/work_observer.h"
#include "trainer/planning/rates.h"

namespace drover {

struct WorkTime {
  WorkKind kind = WorkKind::actions;
  std::vector<Action> actions;
  double seconds = 0;         // of computing, and of messages that it waits for; those of actions that send or receive
                              // take none here
  int64_t message_bytes = 0;  // of each of those
};

struct StepRecord {
  std::vector<WorkTime> works;             // in their order
  std::map<std::string_view, double> ops;  // seconds of computing by op
  int64_t calls = 0;                       // of ops
  double outside = 0;                      // seconds of ops that belong to no work
  double exposed = 0;                      // seconds in which the rank only waits for sums and gathers
  int64_t uploaded_bytes = 0;              // of streamed weights, on a queue of their own
  double computing() const;
};

// Which axes' groups lie on several nodes.
using SpreadAxes = std::map<std::string_view, bool>;

class StepRecorder : public OpObserver, public CommObserver, public WorkObserver {
 public:
  StepRecorder(const Rates& rates, SpreadAxes spread) : rates_(rates), spread_(std::move(spread)) {}
  StepRecord take();  // of what was seen since the last call
  const Rates& rates() const { return rates_; }

  void begin(const OpCall&) override {}
  void end(const OpCall& call) override;
  void called(const CommCall& call) override;
  int64_t started(const CommCall& call) override;
  void waited(int64_t started) override;
  void begin(const Work& work) override;
  void end(const Work& work) override;

 private:
  double seconds_of(const CommCall& call) const;
  double seconds_of(const OpCall& call);

  const Rates& rates_;
  SpreadAxes spread_;
  StepRecord record_;
  std::map<std::string, double> known_;  // seconds of a call by what it is: steps repeat theirs
  double now_ = 0, work_began_ = 0;
  bool in_work_ = false;
  double sums_end_ = 0;             // of the queue of started sums
  std::map<int64_t, double> ends_;  // of those that nobody has waited for
  int64_t next_ = 0;
};

}  // namespace drover
