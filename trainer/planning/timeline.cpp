#include "trainer/planning/timeline.h"

#include <algorithm>
#include <optional>
#include <tuple>

#include "kernels/base/require.h"

namespace drover {

namespace {

bool is_message(const Action& a) { return is_send(a.kind) || is_receive(a.kind); }

class Clock {
 public:
  Clock(const std::vector<StepRecord>& stages, const std::function<double(int64_t)>& message_seconds)
      : stages_(stages), message_seconds_(message_seconds), at_(stages.size()), next_(stages.size()) {}

  Timeline run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (size_t s = 0; s < stages_.size(); ++s) {
        while (advance(s)) moved = true;
      }
    }
    for (size_t s = 0; s < stages_.size(); ++s) {
      require(!next_work(s), "every stage comes to the end of its schedule");
      result_.pipeline = std::max(result_.pipeline, at_[s]);
    }
    double idle = 0, least = 0, behind = 0;
    for (size_t s = 0; s < stages_.size(); ++s) {
      double busy = 0, tail = stages_[s].outside;
      for (const WorkTime& work : stages_[s].works) (work.kind == WorkKind::actions ? busy : tail) += work.seconds;
      const double waits = result_.pipeline - busy;
      idle += waits;
      behind = std::max(behind, tail);
      least = s == 0 ? stages_[s].exposed : std::min(least, stages_[s].exposed);
    }
    result_.seconds = result_.pipeline + behind;
    result_.exposed = least;
    if (result_.pipeline > 0) result_.bubble = idle / (static_cast<double>(stages_.size()) * result_.pipeline);
    return std::move(result_);
  }

 private:
  using Key = std::tuple<size_t, bool, int>;  // sender, forwards, micro-batch

  const WorkTime* next_work(size_t s) {
    const std::vector<WorkTime>& works = stages_[s].works;
    while (next_[s] < works.size() && works[next_[s]].kind != WorkKind::actions) ++next_[s];
    return next_[s] < works.size() ? &works[next_[s]] : nullptr;
  }

  bool advance(size_t s) {
    const WorkTime* work = next_work(s);
    if (work == nullptr) return false;
    double ready = at_[s];
    for (const Action& a : work->actions) {
      const bool forwards = a.kind == ActionKind::recv_forward || a.kind == ActionKind::send_forward;
      if (is_send(a.kind))
        arrival_.try_emplace(Key{s, forwards, a.micro_batch}, at_[s] + message_seconds_(work->message_bytes));
      if (!is_receive(a.kind)) continue;
      const auto found = arrival_.find(Key{forwards ? s - 1 : s + 1, forwards, a.micro_batch});
      if (found == arrival_.end()) return false;
      ready = std::max(ready, found->second);
    }
    at_[s] = ready + work->seconds;
    if (!is_message(work->actions.front()))
      result_.events.push_back({static_cast<int>(s), work->actions.front(), ready, at_[s]});
    ++next_[s];
    return true;
  }

  const std::vector<StepRecord>& stages_;
  const std::function<double(int64_t)>& message_seconds_;
  std::vector<double> at_;
  std::vector<size_t> next_;
  std::map<Key, double> arrival_;
  Timeline result_;
};

}  // namespace

Timeline timeline_of(const std::vector<StepRecord>& stages, const std::function<double(int64_t)>& message_seconds) {
  return Clock(stages, message_seconds).run();
}

}  // namespace drover
