#include "trainer/planning/step_record.h"

#include <algorithm>
#include <utility>

#include "kernels/base/require.h"

namespace drover {

double StepRecord::computing() const {
  double seconds = 0;
  for (const auto& [op, of_op] : ops) seconds += of_op;
  return seconds;
}

StepRecord StepRecorder::take() {
  require(!in_work_ && ends_.empty(), "a step's record is taken when the step has ended");
  now_ = sums_end_ = 0;
  return std::exchange(record_, {});
}

double StepRecorder::seconds_of(const OpCall& call) {
  const auto [at, is_new] = known_.try_emplace(kind_of(call), 0);
  if (is_new) at->second = rates_.seconds(call);
  return at->second;
}

void StepRecorder::end(const OpCall& call) {
  if (call.is_part) return;
  if (call.op == "start_upload") {
    record_.uploaded_bytes += call.bytes;
    return;
  }
  const double seconds = seconds_of(call);
  now_ += seconds;
  record_.ops[call.op] += seconds;
  record_.calls += 1;
  if (!in_work_) record_.outside += seconds;
}

double StepRecorder::seconds_of(const CommCall& call) const {
  const auto spread = spread_.find(call.axis);
  return rates_.message_seconds(call.kind, call.bytes, call.size, spread != spread_.end() && spread->second);
}

void StepRecorder::called(const CommCall& call) {
  if (call.kind == "send" || call.kind == "receive") {
    if (in_work_ && !record_.works.empty()) record_.works.back().message_bytes = call.bytes;
    return;
  }
  const double seconds = seconds_of(call);
  now_ += seconds;
  record_.exposed += seconds;
  if (!in_work_) record_.outside += seconds;
}

int64_t StepRecorder::started(const CommCall& call) {
  sums_end_ = std::max(sums_end_, now_) + seconds_of(call);
  ends_[next_] = sums_end_;
  return next_++;
}

void StepRecorder::waited(int64_t started) {
  const auto end = ends_.extract(started);
  const double waiting = std::max(0.0, end.mapped() - now_);
  now_ += waiting;
  record_.exposed += waiting;
}

void StepRecorder::begin(const Work& work) {
  in_work_ = true;
  work_began_ = now_;
  record_.works.push_back({.kind = work.kind, .actions = {work.actions.begin(), work.actions.end()}});
}

void StepRecorder::end(const Work&) {
  record_.works.back().seconds = now_ - work_began_;
  in_work_ = false;
}

}  // namespace drover
