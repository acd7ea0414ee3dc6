// Traces of steps (log.trace): what every rank did when, as a JSON file for chrome://tracing and Perfetto. A rank is a
// process there and has lanes in which nothing overlaps: the step, the engine's work (the schedule's actions by their
// symbols, then the sum over the ranks and the update), the backend's ops, and, of several ranks, the messages among
// them as kernels/comm/observed.h sees them. Format: Google's "Trace Event Format", complete events ("X"), times in µs
// since the first rank began.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/comm/observed.h"
#include "trainer/engine/engine.h"
#include "trainer/run/run_directory.h"

namespace drover {

// Observes engine and backend as long as it lives. Times are the device's moments (kernels/event.h): nothing waits
// within the step. All ranks' times are of one clock: that of the host on one node; the clocks of several nodes are set
// against each other by a barrier at the step's begin, to within what ranks leave it apart.
class StepTrace : public OpObserver, public WorkObserver, public MessageObserver {
 public:
  // Collective over mesh.world; waits for all that was enqueued. `also`: who observes the backend before and
  // afterwards, and sees all ops meanwhile; may be null. `messages`: of the engine's mesh.
  StepTrace(Engine& engine, OpObserver* also, MessageView& messages);
  ~StepTrace() override;
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;

  // Collective, after the step was enqueued: waits for it, and writes output.dir/trace/step-N.json as the run's
  // records are written (RunDirectory::record). Rank 0 holds the text of one rank at a time.
  void write(RunDirectory& directory, int64_t step);

  void begin(const OpCall& call) override;
  void end(const OpCall& call) override;
  void begin(const Work& work) override;
  void end(const Work& work) override;
  void begin(const CommCall& call) override;
  void end(const CommCall& call) override;

 private:
  struct Span {  // of the device's time
    std::unique_ptr<Moment> begin, end;
  };
  struct TimedWork {
    std::string name, category;
    Span span;
  };
  struct TimedOp {
    OpCall call;
    Span span;
  };
  struct TimedMessage {
    CommCall call;
    Span span;
  };
  std::string text(double offset, int64_t step, Moment& end);  // this rank's events
  double offset_of_clock();  // collective: seconds from the first rank's begin to ours

  Engine& engine_;
  Backend& backend_;
  Mesh& mesh_;
  OpObserver* also_;
  MessageView& view_;
  double barrier_ = 0, begin_ = 0;  // seconds of the host's clock: when the barrier was passed, and the step began
  std::unique_ptr<Moment> origin_;
  std::vector<TimedWork> work_;
  std::vector<TimedOp> ops_;
  std::vector<TimedMessage> messages_;
};

}  // namespace drover
