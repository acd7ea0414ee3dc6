#include "trainer/report/trace_record.h"

#include <algorithm>
#include <map>
#include <set>

#include "kernels/base/json.h"
#include "trainer/report/numbered_files.h"

namespace drover {

namespace {

constexpr const char* kActions = "actions";
constexpr int64_t kMostRanks = 1 << 24;
constexpr double kMostMicroseconds = 1e13;  // months

using Thread = std::pair<Json, Json>;  // pid, tid

Thread thread_of(const Json& event) { return {event.value("pid", Json()), event.value("tid", Json())}; }

// Events of other threads are dropped while they are read: a trace of every op is large. A thread that is named later
// than its events come is kept until then.
class ActionFilter {
 public:
  bool keeps(const Json& event) {
    const Json phase = event.value("ph", Json()), thread = event.value("tid", Json());
    if (phase == "M") return event.value("name", Json()) == "thread_name" && takes_name(event);
    return phase == "X" && thread.is_number() && !others_.contains(thread_of(event));
  }

 private:
  bool takes_name(const Json& event) {
    const Json arguments = event.value("args", Json());
    const bool actions = arguments.is_object() && arguments.value("name", Json()) == kActions;
    if (!actions) others_.insert(thread_of(event));
    return actions;
  }
  std::set<Thread> others_;
};

Json events_of(const std::string& text, const std::string& where) {
  if (json_depth(text) > kJsonDepth) fail(Fault::bad_data, "{} is nested too deeply for a trace", where);
  ActionFilter filter;
  const auto keep = [&](int depth, Json::parse_event_t event, Json& value) {
    return event != Json::parse_event_t::object_end || depth != 2 || filter.keeps(value);
  };
  const Json trace = Json::parse(text, keep, false);
  if (trace.is_object() && trace.contains("traceEvents") && trace["traceEvents"].is_array())
    return trace["traceEvents"];
  fail(Fault::bad_data, "{} is no trace: it has no list traceEvents", where);
}

std::set<Thread> action_threads(const Json& events) {
  std::set<Thread> threads;
  for (const Json& event : events) {
    if (!event.is_object() || event.value("ph", Json()) != "M") continue;
    const Json arguments = event.value("args", Json());
    if (arguments.is_object() && arguments.value("name", Json()) == kActions) threads.insert(thread_of(event));
  }
  return threads;
}

// Of time; what no trace has counts as 0.
double number(const Json& event, const char* key) {
  const Json value = event.value(key, Json());
  const double microseconds = value.is_number() ? value.get<double>() : 0;
  return microseconds >= 0 && microseconds <= kMostMicroseconds ? microseconds : 0;
}

double seconds_of(double microseconds) { return microseconds / 1e6; }

}  // namespace

bool is_message(const std::string& action) {
  return action == "sum" || action.find_first_of("<>") != std::string::npos;
}
bool is_backward(const std::string& action) { return action.find('B') != std::string::npos; }

double TraceStep::idle(int rank) const {
  double busy = 0, until = 0;  // overlapping spans count once
  for (const TraceSpan& span : spans) {
    if (span.rank != rank || is_message(span.name)) continue;
    busy += std::max(0.0, span.end - std::max(span.begin, until));
    until = std::max(until, span.end);
  }
  return seconds > 0 ? std::clamp(1 - busy / seconds, 0.0, 1.0) : 0;
}

double TraceStep::idle() const {
  double sum = 0;
  for (const int rank : ranks) sum += idle(rank);
  return ranks.empty() ? 0 : sum / static_cast<double>(ranks.size());
}

TraceStep parse_trace(const std::string& text, int64_t step, const std::string& where) {
  const Json events = events_of(text, where);
  const std::set<Thread> named = action_threads(events);
  TraceStep trace{.step = step};
  for (const Json& event : events) {
    if (!event.is_object() || event.value("ph", Json()) != "X") continue;
    const Json process = event.value("pid", Json()), thread = event.value("tid", Json());
    if (!process.is_number_integer() || !named.contains(Thread(process, thread))) continue;
    const auto rank = process.get<int64_t>();
    if (rank < 0 || rank > kMostRanks) continue;
    const double begin = seconds_of(number(event, "ts"));
    const Json name = event.value("name", Json());
    trace.spans.push_back({static_cast<int>(rank), begin, begin + seconds_of(number(event, "dur")),
                           name.is_string() ? name.get<std::string>() : "?"});
  }
  if (trace.spans.empty()) fail(Fault::bad_data, "{} has no event of the thread \"actions\"", where);
  const double first = std::ranges::min(trace.spans, {}, &TraceSpan::begin).begin;
  for (TraceSpan& span : trace.spans) {
    span.begin -= first, span.end -= first;
    trace.seconds = std::max(trace.seconds, span.end);
  }
  std::ranges::sort(trace.spans, {}, [](const TraceSpan& s) { return std::pair(s.rank, s.begin); });
  for (const TraceSpan& span : trace.spans) {
    if (trace.ranks.empty() || trace.ranks.back() != span.rank) trace.ranks.push_back(span.rank);
  }
  return trace;
}

std::vector<std::pair<int64_t, fs::path>> trace_files(const fs::path& directory) {
  return numbered_files(directory, "step-", ".json");
}

}  // namespace drover
