#include "trainer/run/step_trace.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "kernels/base/host_name.h"
#include "kernels/comm/gather.h"

namespace drover {

namespace {

enum class Lane : int { step, work, op, message };
constexpr std::pair<Lane, const char*> kLanes[] = {
    {Lane::step, "step"}, {Lane::work, "actions"}, {Lane::op, "ops"}, {Lane::message, "messages"}};

double clock_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string name_of(const Work& work) {
  switch (work.kind) {
    case WorkKind::sum: return "sum";
    case WorkKind::update: return "update";
    case WorkKind::actions: break;
  }
  std::vector<std::string> symbols;
  for (const Action& a : work.actions) symbols.push_back(symbol(a));
  return fmt::format("{}", fmt::join(symbols, " "));
}

std::string category_of(const Work& work) {
  if (work.kind != WorkKind::actions) return work.kind == WorkKind::sum ? "message" : "update";
  const ActionKind kind = work.actions.front().kind;
  return is_send(kind) || is_receive(kind) ? "message" : "compute";
}

std::string shape_text(const Shape& s) { return fmt::format("{}×{}", s.rows, s.cols); }

// Rates that mean something: of a product its arithmetic, of any op its bytes.
std::string arguments_of(const OpCall& call, double seconds) {
  std::string text = fmt::format(R"("shape":"{}{}","dtype":"{}")", shape_text(call.a),
                                 call.is_product() ? " · " + shape_text(call.b) : "", name_of(call.dtype));
  if (seconds <= 0) return text;
  const auto rate = [&](int64_t amount) { return static_cast<double>(amount) / seconds * 1e-9; };
  if (call.is_product()) text += fmt::format(R"(,"GFLOP/s":{:.1f})", rate(call.flops));
  return text + fmt::format(R"(,"GB/s":{:.1f})", rate(call.bytes));
}

std::string arguments_of(const CommCall& call) {
  return fmt::format(R"("bytes":{},"group":"{}","ranks":{})", call.bytes, call.axis, call.size);
}

struct Event {
  std::string name, category, arguments;
  Lane lane;
  double begin, end;  // seconds
};

std::string line(const Event& e, int rank) {
  return fmt::format(R"({{"name":"{}","cat":"{}","ph":"X","ts":{:.3f},"dur":{:.3f},"pid":{},"tid":{},"args":{{{}}}}})",
                     e.name, e.category, e.begin * 1e6, (e.end - e.begin) * 1e6, rank, static_cast<int>(e.lane),
                     e.arguments);
}

std::string names_of(const MeshPosition& p, int rank, bool alone) {
  const auto meta = [&](const char* what, int lane, const std::string& argument) {
    return fmt::format(R"({{"name":"{}","ph":"M","pid":{},"tid":{},"args":{{{}}}}})", what, rank, lane, argument);
  };
  std::string text =
      meta("process_name", 0, fmt::format(R"("name":"rank {} · tp {} pp {} dp {}")", rank, p.tp(), p.pp(), p.dp()));
  text += ",\n" + meta("process_sort_index", 0, fmt::format(R"("sort_index":{})", rank));
  for (const auto& [lane, name] : kLanes) {
    if (alone && lane == Lane::message) continue;
    text += ",\n" + meta("thread_name", static_cast<int>(lane), fmt::format(R"("name":"{}")", name));
    text += ",\n" + meta("thread_sort_index", static_cast<int>(lane),
                         fmt::format(R"("sort_index":{})", static_cast<int>(lane)));
  }
  return text;
}

}  // namespace

StepTrace::StepTrace(Engine& engine, OpObserver* also, MessageView& messages)
    : engine_(engine),
      backend_(engine.replica().backend()),
      mesh_(engine.replica().device.mesh),
      also_(also),
      view_(messages) {
  backend_.moment()->wait();
  mesh_.world->barrier();
  barrier_ = clock_seconds();
  origin_ = backend_.moment();
  origin_->wait();
  begin_ = clock_seconds();
  backend_.observe(this);
  engine_.observe(this);
  view_.observer = this;
}

StepTrace::~StepTrace() {
  view_.observer = nullptr;
  engine_.observe(nullptr);
  backend_.observe(also_);
}

void StepTrace::begin(const OpCall& call) {
  if (also_ != nullptr) also_->begin(call);
  if (!call.is_part) ops_.push_back({call, {backend_.moment(), nullptr}});
}

void StepTrace::end(const OpCall& call) {
  if (!call.is_part) ops_.back().span.end = backend_.moment();
  if (also_ != nullptr) also_->end(call);
}

void StepTrace::begin(const Work& work) {
  work_.push_back({name_of(work), category_of(work), {backend_.moment(), nullptr}});
}

void StepTrace::end(const Work&) { work_.back().span.end = backend_.moment(); }

void StepTrace::begin(const CommCall& call) { messages_.push_back({call, {backend_.moment(), nullptr}}); }

void StepTrace::end(const CommCall&) { messages_.back().span.end = backend_.moment(); }

double StepTrace::offset_of_clock() {
  struct Clock {
    double barrier, begin;
  };
  const std::vector<Clock> clocks = gather(*mesh_.world, Clock{barrier_, begin_});
  const std::vector<std::string> hosts = mesh_.world->gather_strings(host_name());
  std::vector<double> begins;  // since the barrier, by the clock of each rank's host
  for (size_t r = 0; r < clocks.size(); ++r) {
    const auto first = std::ranges::find(hosts, hosts[r]) - hosts.begin();
    begins.push_back(clocks[r].begin - clocks[static_cast<size_t>(first)].barrier);
  }
  return begins[static_cast<size_t>(mesh_.world->rank())] - std::ranges::min(begins);
}

std::string StepTrace::text(double offset, int64_t step, Moment& end) {
  const int rank = mesh_.world->rank();
  std::string text = names_of(mesh_.position, rank, mesh_.shape.size() == 1);
  const auto add = [&](const Event& event) { text += ",\n" + line(event, rank); };
  // All from one moment on, so that no rounding lets neighbours overlap.
  const auto time = [&](Moment& moment) { return offset + origin_->seconds_until(moment); };
  add({fmt::format("step {}", step), "step", "", Lane::step, offset, time(end)});
  for (const TimedWork& w : work_) add({w.name, w.category, "", Lane::work, time(*w.span.begin), time(*w.span.end)});
  for (const TimedOp& o : ops_) {
    const std::string arguments = arguments_of(o.call, o.span.begin->seconds_until(*o.span.end));
    add({std::string(o.call.op), "op", arguments, Lane::op, time(*o.span.begin), time(*o.span.end)});
  }
  for (const TimedMessage& m : messages_)
    add({std::string(m.call.kind), "message", arguments_of(m.call), Lane::message, time(*m.span.begin),
         time(*m.span.end)});
  return text;
}

void StepTrace::write(RunDirectory& directory, int64_t step) {
  const std::unique_ptr<Moment> end = backend_.moment();
  end->wait();
  Communicator& world = *mesh_.world;
  const std::string mine = text(offset_of_clock(), step, *end);
  std::optional<AtomicFile> file;  // of rank 0
  for (int rank = 0; rank < world.size(); ++rank) {
    const std::string one = world.gather_strings(world.rank() == rank ? mine : "")[static_cast<size_t>(rank)];
    directory.record([&](MetricsFile&) {
      if (rank == 0) {
        make_directories(directory.path() / "trace");
        file.emplace(directory.path() / "trace" / fmt::format("step-{}.json", step));
        file->write("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
      }
      file->write((rank == 0 ? "" : ",\n") + one);
      if (rank + 1 < world.size()) return;
      file->write("\n]}\n");
      file->commit();
    });
  }
}

}  // namespace drover
