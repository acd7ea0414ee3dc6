// An observer that times: what each op took on the device, by the backend's moments before and after it. Moments that
// the device has reached are read as later ops come; nothing waits before `times` is asked for.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string_view>

#include "kernels/backend.h"

namespace drover {

struct OpTime {
  int64_t calls = 0;
  double seconds = 0;
  int64_t flops = 0;
  int64_t bytes = 0;
  bool product = false;  // of matrices
};

class OpTimer : public OpObserver {
 public:
  explicit OpTimer(Backend& backend) : backend_(backend) { backend.observe(this); }
  ~OpTimer() override { backend_.observe(nullptr); }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

  const std::map<std::string_view, OpTime>& times();  // by op, whole calls only; waits for all that was enqueued
  void start_over();                                  // forgets the calls so far
  // From now on called with each whole call and its seconds, as they become known.
  using Each = std::function<void(const OpCall&, double seconds)>;
  void each(Each called) { each_ = std::move(called); }

  void begin(const OpCall& call) override;
  void end(const OpCall& call) override;

 private:
  struct Pending {  // a call that was enqueued
    OpCall call;
    std::unique_ptr<Moment> begin, end;
  };
  void take_first();

  Backend& backend_;
  std::unique_ptr<Moment> begin_;
  std::deque<Pending> pending_;
  std::map<std::string_view, OpTime> times_;
  Each each_;
};

}  // namespace drover
