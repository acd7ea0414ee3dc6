#include "kernels/timed/op_timer.h"

namespace drover {

void OpTimer::begin(const OpCall& call) {
  if (!call.is_part) begin_ = backend_.moment();
}

void OpTimer::end(const OpCall& call) {
  if (call.is_part) return;
  pending_.push_back({call, std::move(begin_), backend_.moment()});
  while (!pending_.empty() && pending_.front().end->is_reached()) take_first();
}

void OpTimer::take_first() {
  const Pending& first = pending_.front();
  OpTime& t = times_[first.call.op];
  t.calls += 1;
  const double seconds = first.begin->seconds_until(*first.end);
  if (each_) each_(first.call, seconds);
  t.seconds += seconds;
  t.flops += first.call.flops;
  t.bytes += first.call.bytes;
  t.product |= first.call.is_product();
  pending_.pop_front();
}

const std::map<std::string_view, OpTime>& OpTimer::times() {
  while (!pending_.empty()) take_first();
  return times_;
}

void OpTimer::start_over() {
  pending_.clear();
  times_.clear();
}

}  // namespace drover
