#include "kernels/nccl/watch.h"

#include "kernels/base/log.h"
#include "kernels/base/program.h"
#include "kernels/cuda/check.h"

namespace drover::nccl {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kEvery{20};
constexpr double kIssueSeconds = 1;

Clock::duration seconds(double s) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
}

}  // namespace

Watch::Watch(const Api& api, const WatchSettings& settings)
    : api_(api), settings_(settings), thread_([this] { run(); }) {}

bool Watch::stop() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  return failure_.has_value();
}

Watch::~Watch() {
  stop();
  for (const Call& call : calls_) {
    if (call.done != nullptr) cudaEventDestroy(call.done);
  }
  for (cudaEvent_t event : free_events_) cudaEventDestroy(event);
}

void Watch::add(ncclComm_t comm, const std::string& axis) {
  const std::lock_guard lock(mutex_);
  comms_.emplace_back(comm, axis);
}

void Watch::begin(std::string call) {
  require(std::this_thread::get_id() == issuer_, "one thread issues all NCCL calls");
  check();
  const std::lock_guard lock(mutex_);
  retire();
  if (calls_.empty()) oldest_since_ = Clock::now();
  calls_.push_back({std::move(call), ++count_});
}

void Watch::issued(cudaStream_t stream) {
  const std::lock_guard lock(mutex_);
  cudaEvent_t event = nullptr;
  if (free_events_.empty()) {
    cuda::check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  } else {
    event = free_events_.back();
    free_events_.pop_back();
  }
  cuda::check(cudaEventRecord(event, stream), "cudaEventRecord");
  calls_.back().done = event;
  changed_.notify_all();
}

bool Watch::ended(const Call& call) const {
  return call.done != nullptr && cudaEventQuery(call.done) != cudaErrorNotReady;
}

// Calls of different queues may overtake one another; what counts is the oldest.
void Watch::retire() {
  while (!calls_.empty() && ended(calls_.front())) {
    free_events_.push_back(calls_.front().done);
    calls_.pop_front();
    oldest_since_ = Clock::now();
  }
}

ncclResult_t Watch::state_of(ncclComm_t comm) {
  {
    const std::lock_guard lock(mutex_);
    ncclResult_t state = ncclSuccess;
    if (!failure_) {
      const ncclResult_t asked = api_.async_error(comm, &state);
      return asked == ncclSuccess ? state : asked;
    }
  }
  check();
  return ncclInternalError;  // check throws
}

void Watch::check() {
  std::unique_lock lock(mutex_);
  if (!failure_) return;
  changed_.wait_for(lock, seconds(settings_.abort_seconds), [&] { return aborted_; });
  noticed_ = true;
  throw Error(*failure_);
}

bool Watch::failed() const {
  const std::lock_guard lock(mutex_);
  return failure_.has_value();
}

void Watch::tell(const std::string& words) {
  const std::lock_guard lock(mutex_);
  if (failure_) failure_.emplace(failure_->fault(), words);
}

std::string Watch::under_way() const {
  const std::lock_guard lock(mutex_);
  return failure_ ? stuck_ : oldest();
}

std::string Watch::oldest() const {
  for (const Call& call : calls_) {
    if (!ended(call)) return fmt::format("{} (call {})", call.text, call.number);
  }
  return {};
}

void Watch::fail_now(Fault fault, std::string words) {
  {
    std::unique_lock lock(mutex_);
    if (!failure_) {
      stuck_ = oldest();
      failure_.emplace(fault, std::move(words));
    }
  }
  changed_.notify_all();
  check();
}

void Watch::run() {
  cudaSetDevice(settings_.device);
  std::unique_lock lock(mutex_);
  watch_calls(lock);
  if (!failure_) return;
  if (stuck_.empty()) stuck_ = oldest();
  // A call that is just being issued should not lose its communicator under it; one that waits for room in the device's
  // queue does not come back by itself.
  changed_.wait_for(lock, seconds(kIssueSeconds), [&] { return calls_.empty() || calls_.back().done != nullptr; });
  abort_all(lock);
  aborted_ = true;
  changed_.notify_all();
  // The issuing thread comes by, and leaves; it may be caught on its way out by a device that is still waiting.
  changed_.wait_for(lock, seconds(settings_.notice_seconds), [&] { return noticed_ || ending_; });
  if (ending_ || (noticed_ && changed_.wait_for(lock, seconds(settings_.leave_seconds), [&] { return ending_; })))
    return;
  log::put(
      fmt::format("drover: {}. The last checkpoint is untouched: start the same command again.\n", failure_->what()));
  end_process(failure_->fault());
}

// Until the watch ends or something fails.
void Watch::watch_calls(std::unique_lock<std::mutex>& lock) {
  while (!ending_ && !failure_) {
    changed_.wait_for(lock, kEvery);
    if (failure_) break;
    for (const auto& [comm, axis] : comms_) {
      ncclResult_t error = ncclSuccess;
      const ncclResult_t asked = api_.async_error(comm, &error);
      if (asked != ncclSuccess) error = asked;
      if (error == ncclSuccess || error == ncclInProgress) continue;
      failure_.emplace(
          Fault::rank_lost,
          fmt::format("{}: NCCL reports: {}; a rank or a link was lost. NCCL_DEBUG=WARN in the environment says more",
                      axis, api_.error_string(error)));
      break;
    }
    retire();
    if (failure_ || calls_.empty() || Clock::now() < oldest_since_ + seconds(settings_.deadline_seconds)) continue;
    const Call& late = calls_.front();
    failure_.emplace(Fault::rank_hangs,
                     fmt::format("{} (call {}) did not end in {:g} s; DROVER_COMM_TIMEOUT_S sets the time", late.text,
                                 late.number, settings_.deadline_seconds));
  }
}

// All communicators, and at once: an abort waits for the device, where the kernel of a communicator that was not
// aborted yet may spin.
void Watch::abort_all(std::unique_lock<std::mutex>& lock) {
  struct Aborts {
    std::mutex mutex;
    std::condition_variable changed;
    size_t left = 0;
  };
  const auto aborts = std::make_shared<Aborts>();
  aborts->left = comms_.size();
  for (const auto& [comm, axis] : comms_) {
    std::thread([aborts, comm = comm, abort = api_.abort, device = settings_.device] {
      cudaSetDevice(device);
      abort(comm);
      const std::lock_guard done(aborts->mutex);
      if (--aborts->left == 0) aborts->changed.notify_all();
    }).detach();
  }
  lock.unlock();
  {
    std::unique_lock waiting(aborts->mutex);
    aborts->changed.wait_for(waiting, seconds(settings_.abort_seconds), [&] { return aborts->left == 0; });
  }
  lock.lock();
}

}  // namespace drover::nccl
