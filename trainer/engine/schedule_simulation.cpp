// Schedules on paper: printed, checked for completeness and order, and run against each other with sends that wait for
// their receive.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <tuple>

#include "kernels/base/error.h"
#include "trainer/engine/schedule.h"

namespace drover {

namespace {

constexpr const char* kSymbols[] = {"<F", "F", ">F", "<B", "B", ">B"};

// Which actions a micro-batch must have on a stage, by kind.
std::array<bool, 6> expected_of(const ScheduleShape& s) {
  const bool first = s.stage == 0, last = s.stage == s.stages - 1, trains = s.stage >= s.first_trained_stage;
  return {!first, true, !last, trains && !last, trains, trains && s.stage > s.first_trained_stage};
}

void check_list(const Schedule& schedule, std::vector<std::string>& problems) {
  const ScheduleShape& s = schedule.shape;
  const std::array<bool, 6> expected = expected_of(s);
  std::vector<std::array<int, 6>> seen(static_cast<size_t>(s.micro_batches));
  std::map<int64_t, int> holder;     // slot → micro-batch whose saved tensors it holds
  std::map<int64_t, int> streaming;  // buffer → micro-batch whose stream it holds
  const int64_t ring = slots(schedule), stream_ring = streams(schedule);
  size_t last = 5;  // the kind after which a micro-batch is over
  while (!expected[last]) --last;
  size_t group = 0;
  std::vector<int64_t> leaving;  // buffers that are free when the group ends
  for (size_t i = 0; i < schedule.actions.size(); ++i) {
    const Action& a = schedule.actions[i];
    const auto complain = [&](std::string_view what) {
      problems.push_back(fmt::format("stage {}, action {} ({}): {}", s.stage, i, symbol(a), what));
    };
    if (a.micro_batch < 0 || a.micro_batch >= s.micro_batches) {
      complain("there is no such micro-batch");
      continue;
    }
    std::array<int, 6>& done = seen[static_cast<size_t>(a.micro_batch)];
    const size_t kind = static_cast<size_t>(a.kind);
    if (!expected[kind]) complain("this stage has no such action");
    if (done[kind]++ > 0) complain("done twice");
    for (size_t later = kind + 1; later < 6; ++later) {
      if (done[later] > 0) complain(fmt::format("comes after {}{}", kSymbols[later], a.micro_batch));
    }
    const int64_t slot = a.micro_batch % ring;
    const bool opens = a.kind == (s.stage == 0 ? ActionKind::forward : ActionKind::recv_forward);
    if (opens && holder.contains(slot)) complain(fmt::format("its slot still holds micro-batch {}", holder[slot]));
    if (opens) holder[slot] = a.micro_batch;
    const bool closes =
        a.kind == (expected[static_cast<size_t>(ActionKind::backward)] ? ActionKind::backward : ActionKind::forward);
    if (closes) holder.erase(slot);
    if (i >= group) {
      for (int64_t buffer : leaving) streaming.erase(buffer);
      leaving.clear();
      group = std::max(i + 1, group_end(schedule, i));
    }
    const int64_t buffer = a.micro_batch % stream_ring;
    if (opens && streaming.contains(buffer))
      complain(fmt::format("its stream's buffer still holds micro-batch {}", streaming[buffer]));
    if (opens) streaming[buffer] = a.micro_batch;
    if (kind == last) leaving.push_back(buffer);
  }
  for (int m = 0; m < s.micro_batches; ++m) {
    for (size_t kind = 0; kind < 6; ++kind) {
      if (expected[kind] && seen[static_cast<size_t>(m)][kind] == 0) {
        problems.push_back(fmt::format("stage {}: {}{} is missing", s.stage, kSymbols[kind], m));
      }
    }
  }
}

// A message is known by who sends it to whom and its micro-batch; both ends write down when they were ready for it.
struct Meeting {
  std::optional<double> sent, received;
  bool complete() const { return sent && received; }
  double time() const { return std::max(*sent, *received); }
};

class Run {
 public:
  Run(const std::vector<Schedule>& stages, const SimulationCosts& costs)
      : stages_(stages), costs_(costs), ranks_(stages.size()) {}

  void finish(Simulation& result) {
    for (bool moved = true; moved;) {
      moved = false;
      for (size_t r = 0; r < ranks_.size(); ++r) {
        while (advance(r)) moved = true;
      }
    }
    double busy = 0;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      busy += ranks_[r].busy;
      result.makespan = std::max(result.makespan, ranks_[r].clock);
      if (ranks_[r].next < stages_[r].actions.size()) {
        result.problems.push_back(
            fmt::format("deadlock: stage {} waits for ever in action {}", r, ranks_[r].waiting_for));
      }
    }
    for (const auto& [key, message] : messages_) {
      if (message.sent && !message.received) {
        result.problems.push_back(
            fmt::format("stage {} sends {}{} to stage {}, which never receives it", std::get<0>(key),
                        std::get<1>(key) > std::get<0>(key) ? "x of micro-batch " : "dx of micro-batch ",
                        std::get<2>(key), std::get<1>(key)));
      }
    }
    if (result.makespan > 0) result.idle_fraction = 1 - busy / (static_cast<double>(ranks_.size()) * result.makespan);
  }

 private:
  using Key = std::tuple<int, int, int>;  // from, to, micro-batch
  struct Rank {
    size_t next = 0;
    double clock = 0, busy = 0;
    std::string waiting_for;
  };

  static Key key_of(int stage, const Action& a) {
    const bool forwards = a.kind == ActionKind::recv_forward || a.kind == ActionKind::send_forward;
    const int lower = (is_send(a.kind) == forwards) ? stage : stage - 1, upper = lower + 1;
    return forwards ? Key{lower, upper, a.micro_batch} : Key{upper, lower, a.micro_batch};
  }

  bool advance(size_t r) {
    Rank& rank = ranks_[r];
    const Schedule& schedule = stages_[r];
    if (rank.next == schedule.actions.size()) return false;
    const size_t end = group_end(schedule, rank.next);
    if (end == rank.next) {
      const double cost = schedule.actions[rank.next++].kind == ActionKind::forward ? costs_.forward : costs_.backward;
      rank.clock += cost;
      rank.busy += cost;
      return true;
    }
    double ended = rank.clock;
    rank.waiting_for.clear();
    for (size_t i = rank.next; i < end; ++i) {
      const Action& a = schedule.actions[i];
      const Key key = key_of(static_cast<int>(r), a);
      Meeting& message = messages_[key];
      std::optional<double>& mine = is_send(a.kind) ? message.sent : message.received;
      if (!mine) mine = rank.clock;
      if (message.complete()) {
        ended = std::max(ended, message.time());
      } else if (rank.waiting_for.empty()) {
        rank.waiting_for =
            fmt::format("{} ({}): stage {} does not {} it", i, symbol(a),
                        is_send(a.kind) ? std::get<1>(key) : std::get<0>(key), is_send(a.kind) ? "receive" : "send");
      }
    }
    if (!rank.waiting_for.empty()) return false;
    rank.clock = ended;
    rank.next = end;
    return true;
  }

  const std::vector<Schedule>& stages_;
  SimulationCosts costs_;
  std::vector<Rank> ranks_;
  std::map<Key, Meeting> messages_;
};

}  // namespace

std::string symbol(const Action& a) { return fmt::format("{}{}", kSymbols[static_cast<int>(a.kind)], a.micro_batch); }

std::string print(const std::vector<Schedule>& stages) {
  std::string text;
  for (const Schedule& schedule : stages) {
    text += fmt::format("stage {}:", schedule.shape.stage);
    for (const Action& a : schedule.actions) text += " " + symbol(a);
    text += "\n";
  }
  return text +
         "F forward, B backward, <F receive x, >F send x, <B receive dx, >B send dx; the number is the micro-batch\n";
}

Simulation simulate(const std::vector<Schedule>& stages, const SimulationCosts& costs) {
  Simulation result;
  for (size_t r = 0; r < stages.size(); ++r) {
    const ScheduleShape& s = stages[r].shape;
    require(s.stage == static_cast<int>(r) && s.stages == static_cast<int>(stages.size()),
            "a simulation has one schedule per stage, in order");
    check_list(stages[r], result.problems);
  }
  Run(stages, costs).finish(result);
  return result;
}

std::vector<Schedule> validated(std::vector<Schedule> stages) {
  const Simulation simulation = simulate(stages);
  if (!simulation.problems.empty())
    fail(Fault::internal, "internal error: the pipeline's schedule would not end: {}",
         fmt::join(simulation.problems, "; "));
  return stages;
}

}  // namespace drover
