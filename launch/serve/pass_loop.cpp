#include "launch/serve/pass_loop.h"

#include <algorithm>
#include <chrono>

#include "kernels/base/require.h"
#include "launch/serve/wire_request.h"

namespace drover {

namespace {

using namespace std::chrono_literals;

// How long rank 0 waits for something to do before it says that it is there; the others would give it up.
constexpr std::chrono::milliseconds kBeat = 1s, kBeatWhileReading = 10ms;

constexpr const char* kSubmit = "submit";
constexpr const char* kCancel = "cancel";
constexpr const char* kAttach = "attach";
constexpr const char* kDetach = "detach";
constexpr const char* kEnd = "end";

template <typename... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

}  // namespace

PassLoop::PassLoop(Inference& inference, Communicator& world, MakeFilter make_filter, Look look)
    : inference_(inference),
      batcher_(inference.batcher()),
      world_(world),
      make_filter_(std::move(make_filter)),
      look_(std::move(look)) {
  publish_state();
}

// Sinks hold models, whose end is an order.
PassLoop::~PassLoop() {
  answering_.clear();
  for (std::vector<Order> late = std::exchange(orders_, {}); !late.empty(); late = std::exchange(orders_, {})) {
  }
}

uint64_t PassLoop::submit(Request request, Sink sink, std::string form) {
  const std::lock_guard lock(mutex_);
  ++state_.submitted;
  orders_.emplace_back(Submit{tickets_, std::move(request), std::move(sink), std::move(form)});
  arrived_.notify_one();
  return tickets_++;
}

void PassLoop::cancel(uint64_t ticket) {
  const auto submits = [ticket](const Order& order) {
    const auto* submit = std::get_if<Submit>(&order);
    return submit != nullptr && submit->ticket == ticket;
  };
  std::optional<Order> dropped;  // without the lock, as the end of its sink may be an order
  const std::lock_guard lock(mutex_);
  if (const auto untaken = std::ranges::find_if(orders_, submits); untaken != orders_.end()) {
    dropped = std::move(*untaken);
    orders_.erase(untaken);
    --state_.submitted;
    return;
  }
  orders_.emplace_back(Cancel{ticket});
  arrived_.notify_one();
}

void PassLoop::attach(const fs::path& directory, Attached attached) {
  const std::lock_guard lock(mutex_);
  orders_.emplace_back(Attach{directory.string(), std::move(attached)});
  arrived_.notify_one();
}

void PassLoop::detach(int slot) {
  const std::lock_guard lock(mutex_);
  orders_.emplace_back(Detach{slot});
  arrived_.notify_one();
}

void PassLoop::end() {
  const std::lock_guard lock(mutex_);
  ending_ = true;
  arrived_.notify_one();
}

PassLoop::State PassLoop::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

std::vector<PassLoop::Order> PassLoop::wait_for_orders() {
  std::unique_lock lock(mutex_);
  if (!busy()) arrived_.wait_for(lock, kBeat, [&] { return !orders_.empty() || ending_; });
  if (batcher_.idle() && !readings_.empty())
    arrived_.wait_for(lock, kBeatWhileReading, [&] { return !orders_.empty(); });
  over_ = ending_ && orders_.empty() && !busy();
  state_.submitted = 0;
  return std::exchange(orders_, {});
}

Json PassLoop::orders_to_say(std::vector<Order> orders) {
  Json said = Json::array();
  for (const uint64_t number : std::exchange(unwanted_, {})) said.push_back({kCancel, number});
  const auto cancel = [&](const Cancel& c) {
    // What has ended has no number any more.
    if (const auto known = numbers_.find(c.ticket); known != numbers_.end()) said.push_back({kCancel, known->second});
  };
  const Overloaded say{[&](Submit& s) {
                         said.push_back({kSubmit, to_wire(s.request), s.form});
                         submitted_.push_back({s.ticket, std::move(s.sink)});
                       },
                       cancel,
                       [&](Attach& a) {
                         said.push_back({kAttach, a.directory});
                         attaching_.push_back(std::move(a.attached));
                       },
                       [&](const Detach& d) {
                         said.push_back({kDetach, d.slot});
                       }};
  for (Order& order : orders) std::visit(say, order);
  if (over_) said.push_back(Json::array({kEnd}));
  return said;
}

void PassLoop::obey(const Json& order) {
  const std::string& what = order.at(0).get_ref<const std::string&>();
  if (what == kSubmit) {
    Request request = from_wire(order.at(1));
    const std::string form = order.at(2);
    if (!form.empty()) request.filter = make_filter_(form, request.stop_ids);
    const uint64_t number = batcher_.submit(std::move(request));
    if (submitted_.empty()) return;  // another rank's
    numbers_[submitted_.front().ticket] = number;
    answering_.emplace(number, std::move(submitted_.front()));
    submitted_.pop_front();
  } else if (what == kCancel) {
    const uint64_t number = order.at(1);
    batcher_.cancel(number);
    if (const auto found = answering_.find(number); found != answering_.end()) {
      numbers_.erase(found->second.ticket);
      answering_.erase(found);
    }
  } else if (what == kAttach) {
    readings_.emplace(readings_begun_++, start_reading(order.at(1).get<std::string>()));
  } else if (what == kDetach) {
    inference_.detach(order.at(1));
  } else {
    require(what == kEnd, "an order is one of those that rank 0 gives");
    over_ = true;
  }
}

PassLoop::Reading PassLoop::start_reading(const fs::path& directory) {
  const auto read = [this, directory]() -> Read {
    try {
      return inference_.read_adapter(directory);
    } catch (const Error& error) {
      return error;
    } catch (const std::exception& error) {
      return Error(Fault::io, fmt::format("{}: {}", directory.string(), error.what()));
    }
  };
  Reading reading{.file = std::async(std::launch::async, read)};
  if (attaching_.empty()) return reading;  // another rank's
  reading.attached = std::move(attaching_.front());
  attaching_.pop_front();
  return reading;
}

// [number, hash] or [number, fault, message] of each that this rank has read since it said so last.
Json PassLoop::finished_readings() {
  Json said = Json::array();
  for (auto& [number, reading] : readings_) {
    if (reading.read || reading.file.wait_for(0s) != std::future_status::ready) continue;
    reading.read = reading.file.get();
    if (const auto* error = std::get_if<Error>(&*reading.read)) {
      said.push_back({number, static_cast<int>(error->fault()), error->what()});
    } else {
      said.push_back({number, std::get<LoadedAdapter>(*reading.read).hash});
    }
  }
  return said;
}

void PassLoop::take_note(const Json& finished) {
  for (const Json& one : finished) {
    Reading& reading = readings_.at(one.at(0).get<uint64_t>());
    ++reading.done;
    if (reading.error) continue;
    if (one.size() == 3) {
      reading.error.emplace(static_cast<Fault>(one.at(1).get<int>()), one.at(2).get<std::string>());
      continue;
    }
    const std::string hash = one.at(1);
    if (reading.hash.empty()) reading.hash = hash;
    if (reading.hash != hash) {
      reading.error.emplace(Fault::bad_data, "the ranks read adapters of unlike content from that path");
    }
  }
}

void PassLoop::finish_readings() {
  std::erase_if(readings_, [&](const auto& entry) {
    const Reading& reading = entry.second;
    if (reading.done < world_.size()) return false;
    if (reading.error) {
      if (reading.attached) reading.attached(*reading.error);
    } else {
      const int slot = inference_.attach(std::get<LoadedAdapter>(*reading.read));
      if (reading.attached) reading.attached(AttachedAdapter{slot, reading.hash});
    }
    return true;
  });
}

void PassLoop::hand_out(std::span<const Event> events) {
  for (const Event& event : events) {
    const auto found = answering_.find(event.request);
    if (found == answering_.end()) continue;
    const bool ends = std::holds_alternative<Finish>(event.what) || std::holds_alternative<Error>(event.what);
    const bool wanted = found->second.sink(event);
    if (wanted && !ends) continue;
    if (!ends) unwanted_.push_back(event.request);
    numbers_.erase(found->second.ticket);
    answering_.erase(found);
  }
}

void PassLoop::publish_state() {
  const PrefixCache& cache = batcher_.prefixes();
  const std::lock_guard lock(mutex_);
  state_.load = batcher_.load();
  state_.preemptions = batcher_.preemptions();
  state_.blocks = inference_.decoder().pool().blocks();
  state_.free_blocks = cache.free_blocks();
}

void PassLoop::run() {
  const bool first = world_.rank() == 0;
  while (!over_) {
    if (first && look_) look_();
    Json said = Json::object();
    if (first) said["orders"] = orders_to_say(wait_for_orders());
    said["read"] = finished_readings();
    const std::vector<uint8_t> bytes = Json::to_cbor(said);
    const std::vector<std::string> all = world_.gather_strings({bytes.begin(), bytes.end()});
    for (size_t rank = 0; rank < all.size(); ++rank) {
      const Json heard = Json::from_cbor(all[rank]);
      if (rank == 0) std::ranges::for_each(heard.at("orders"), [&](const Json& order) { obey(order); });
      take_note(heard.at("read"));
    }
    finish_readings();
    std::span<const Event> events;
    if (!batcher_.idle()) events = batcher_.step();
    publish_state();  // before anybody hears of the pass
    hand_out(events);
  }
}

}  // namespace drover
