#include "trainer/engine/schedule.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "kernels/base/error.h"

namespace drover {

namespace {

void check(const ScheduleShape& s) {
  require(s.stages >= 1 && s.stage >= 0 && s.stage < s.stages, "a schedule is for one of its stages");
  require(s.micro_batches >= 0, "a schedule has a number of micro-batches");
  require(s.first_trained_stage >= 0 && s.first_trained_stage <= s.stages,
          "the first trained stage is a stage, or none is");
  require(s.together >= 1 && (s.together == 1 || s.stages == 1), "one stage takes micro-batches together");
}

}  // namespace

Schedule one_f_one_b(const ScheduleShape& s) {
  check(s);
  const bool first = s.stage == 0, last = s.stage == s.stages - 1, trains = s.stage >= s.first_trained_stage;
  Schedule schedule{s, {}};
  const auto add = [&](ActionKind kind, int m) { schedule.actions.push_back({kind, m}); };
  const auto forward = [&](int m) {
    if (!first) add(ActionKind::recv_forward, m);
    add(ActionKind::forward, m);
    if (!last) add(ActionKind::send_forward, m);
  };
  const auto backward = [&](int m) {
    if (!trains) return;
    if (!last) add(ActionKind::recv_backward, m);
    add(ActionKind::backward, m);
    if (s.stage > s.first_trained_stage) add(ActionKind::send_backward, m);
  };
  // Each stage runs as many forwards ahead as there are stages behind it; then one forward, one backward.
  const int ahead = std::min(s.stages - 1 - s.stage, s.micro_batches);
  for (int m = 0; m < ahead; ++m) forward(m);
  for (int m = ahead; m < s.micro_batches; m += s.together) {
    const int end = std::min(m + s.together, s.micro_batches);
    for (int of_group = m; of_group < end; ++of_group) forward(of_group);
    for (int of_group = m; of_group < end; ++of_group) backward(of_group - ahead);
  }
  for (int m = s.micro_batches - ahead; m < s.micro_batches; ++m) backward(m);
  return schedule;
}

std::vector<Schedule> all_stages(ScheduleShape shape) {
  std::vector<Schedule> stages;
  for (shape.stage = 0; shape.stage < shape.stages; ++shape.stage) stages.push_back(one_f_one_b(shape));
  return stages;
}

bool is_send(ActionKind kind) { return kind == ActionKind::send_forward || kind == ActionKind::send_backward; }
bool is_receive(ActionKind kind) { return kind == ActionKind::recv_forward || kind == ActionKind::recv_backward; }

size_t group_end(const Schedule& schedule, size_t begin) {
  std::set<int> inside;
  size_t end = begin;
  while (end < schedule.actions.size()) {
    const Action& a = schedule.actions[end];
    if (!(is_send(a.kind) || is_receive(a.kind)) || !inside.insert(a.micro_batch).second) break;
    ++end;
  }
  return end;
}

size_t together_end(const Schedule& schedule, size_t begin) {
  const size_t most = std::min(schedule.actions.size(), begin + static_cast<size_t>(schedule.shape.together));
  size_t end = begin + 1;
  while (end < most && schedule.actions[end].kind == schedule.actions[begin].kind) ++end;
  return end;
}

namespace {

// The most micro-batches alive at once, at least 1: from their first action to their last of those that `counts`, and
// with messages to the end of their group.
template <typename Counts>
int64_t most_alive(const Schedule& schedule, Counts&& counts) {
  std::map<int, size_t> last;
  for (size_t i = 0; i < schedule.actions.size(); ++i) {
    if (counts(schedule.actions[i].kind))
      last[schedule.actions[i].micro_batch] = std::max(i + 1, group_end(schedule, i));
  }
  std::set<int> alive;
  size_t most = 1;
  for (size_t i = 0; i < schedule.actions.size(); ++i) {
    for (const auto& [micro_batch, end] : last) {
      if (end == i) alive.erase(micro_batch);
    }
    if (counts(schedule.actions[i].kind)) alive.insert(schedule.actions[i].micro_batch);
    most = std::max(most, alive.size());
  }
  return static_cast<int64_t>(most);
}

}  // namespace

int64_t slots(const Schedule& schedule) {
  // From its first action here to its backward, or to its forward where it has none. What leaves does not need the
  // slot.
  return most_alive(schedule, [](ActionKind kind) { return !is_send(kind); });
}

int64_t streams(const Schedule& schedule) {
  return most_alive(schedule, [](ActionKind) { return true; });
}

std::vector<LayerRange> partition_layers(int64_t layers, int stages, double head_cost_in_layers) {
  require(stages >= 1 && head_cost_in_layers >= 0, "layers are split over at least one stage");
  if (stages > layers) {
    fail(Fault::bad_recipe,
         "parallel.pp is {}, but the model has {} layers and every stage needs at least one; set parallel.pp to {} or "
         "less",
         stages, layers, layers);
  }
  struct Cost {
    double dearest = std::numeric_limits<double>::infinity(), squares = 0;
    bool operator<(const Cost& other) const {
      return dearest != other.dearest ? dearest < other.dearest : squares < other.squares;
    }
  };
  // best[s][n]: the last s stages hold the last n layers; the foremost of them holds take[s][n].
  const size_t size = static_cast<size_t>(layers) + 1;
  std::vector<std::vector<Cost>> best(static_cast<size_t>(stages) + 1, std::vector<Cost>(size));
  std::vector<std::vector<size_t>> take(best.size(), std::vector<size_t>(size, 0));
  for (size_t n = 1; n < size; ++n) {
    const double cost = static_cast<double>(n) + head_cost_in_layers;
    best[1][n] = {cost, cost * cost};
    take[1][n] = n;
  }
  for (size_t s = 2; s < best.size(); ++s) {
    for (size_t n = s; n < size; ++n) {
      for (size_t own = 1; own + s - 1 <= n; ++own) {
        const Cost& rest = best[s - 1][n - own];
        const double cost = static_cast<double>(own);
        const Cost with{std::max(cost, rest.dearest), cost * cost + rest.squares};
        if (with < best[s][n]) {  // strictly: of equals the one with the fewest layers in front stays
          best[s][n] = with;
          take[s][n] = own;
        }
      }
    }
  }
  std::vector<LayerRange> ranges;
  int64_t begin = 0;
  for (size_t s = static_cast<size_t>(stages); s > 0; --s) {
    const int64_t count = static_cast<int64_t>(take[s][static_cast<size_t>(layers - begin)]);
    ranges.push_back({begin, begin + count});
    begin += count;
  }
  return ranges;
}

}  // namespace drover
