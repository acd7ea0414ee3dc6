#include "kernels/nccl/link.h"

#include <algorithm>
#include <atomic>
#include <map>

#include "kernels/comm/agree.h"
#include "kernels/comm/deadline.h"
#include "kernels/cuda/check.h"

namespace drover::nccl {

namespace {

constexpr double kFinalizeSeconds = 30;

// Deadlines of ranks that wait for the same one pass at different times. It ends early where all answer.
double roll_call_seconds() { return std::clamp(comm_deadline_seconds() / 4, 2.0, 30.0); }

ncclConfig_t without_blocking() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

}  // namespace

Link::Link(const Api& api, std::shared_ptr<Communicator> world, cuda::CudaBackend& backend, int device)
    : api_(api), world_(std::move(world)), backend_(backend) {
  // What others wait for comes before this rank's own computing: a product that is ready at the same time would fill
  // the device.
  int least = 0, greatest = 0;
  cuda::check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
  for (cudaStream_t* stream : {&messages_, &sums_})
    cuda::check(cudaStreamCreateWithPriority(stream, cudaStreamNonBlocking, greatest), "cudaStreamCreateWithPriority");
  watch_ = std::make_unique<Watch>(api, WatchSettings{.device = device, .deadline_seconds = comm_deadline_seconds()});
  backend.after_wait([this] { check(); });
}

Link::~Link() {
  backend_.after_wait({});
  if (std::uncaught_exceptions() == 0 && !watch_->failed()) {
    cudaStreamSynchronize(backend_.stream());
    cudaStreamSynchronize(messages_);
    cudaStreamSynchronize(sums_);
  }
  const bool aborted = watch_->stop();
  std::reverse(comms_.begin(), comms_.end());  // children before the world
  for (ncclComm_t comm : comms_) {
    if (aborted || comm == nullptr) continue;
    ncclResult_t result = std::uncaught_exceptions() > 0 ? ncclInternalError : api_.finalize(comm);
    Deadline deadline(kFinalizeSeconds);
    while (result == ncclInProgress && !deadline.passed()) {
      if (api_.async_error(comm, &result) != ncclSuccess) result = ncclInternalError;
      if (result == ncclInProgress) deadline.pause();
    }
    result == ncclSuccess ? api_.destroy(comm) : api_.abort(comm);
  }
  watch_.reset();
  if (scratch_ != nullptr) backend_.memory().release(scratch_, scratch_bytes_);
  cudaStreamDestroy(messages_);
  cudaStreamDestroy(sums_);
}

ncclComm_t Link::init(int size, int rank, const ncclUniqueId& id) {
  ncclConfig_t config = without_blocking();
  ncclComm_t& comm = comms_.emplace_back(nullptr);
  const ncclResult_t result = api_.init(&comm, size, id, rank, &config);
  if (comm != nullptr) watch_->add(comm, "world");
  finish(comm, "world: NCCL's start", result);
  return comm;
}

ncclComm_t Link::split(ncclComm_t parent, int color, int key, const std::string& axis) {
  ncclConfig_t config = without_blocking();
  ncclComm_t& handle = comms_.emplace_back(nullptr);
  const std::string text = axis + ": NCCL's split";
  finish(parent, text, api_.split(parent, color, key, &handle, &config));
  // Another thread of NCCL writes the handle, some time after the parent reports success (seen with 2.28 on an H200).
  ncclComm_t comm = nullptr;
  for (Deadline deadline; (comm = std::atomic_ref(handle).load()) == nullptr; deadline.pause()) {
    finish(parent, text, ncclInProgress);
    if (deadline.passed())
      fail_with(Fault::rank_hangs, fmt::format("{} gave no communicator in {:g} s; DROVER_COMM_TIMEOUT_S sets the time",
                                               text, comm_deadline_seconds()));
  }
  watch_->add(comm, axis);
  finish(comm, text, ncclInProgress);
  return comm;
}

void Link::call(ncclComm_t comm, const std::string& text, cudaStream_t stream,
                const std::function<ncclResult_t()>& issue) {
  try {
    watch_->begin(text);
  } catch (const Error& error) {
    report(error);
  }
  finish(comm, text, issue());
  watch_->issued(stream);
}

void Link::finish(ncclComm_t comm, const std::string& text, ncclResult_t result) {
  Deadline deadline;
  while (result == ncclInProgress) {
    try {
      result = watch_->state_of(comm);
    } catch (const Error& error) {
      report(error);
    }
    if (result != ncclInProgress) break;
    if (deadline.passed())
      fail_with(Fault::rank_hangs, fmt::format("{} did not end in {:g} s; DROVER_COMM_TIMEOUT_S sets the time", text,
                                               comm_deadline_seconds()));
    deadline.pause();
  }
  if (result == ncclSuccess) return;
  const char* more = api_.last_error(comm);
  fail_with(result == ncclInvalidArgument || result == ncclInvalidUsage ? Fault::internal : Fault::rank_lost,
            fmt::format("{}: NCCL reports: {}{}{}; NCCL_DEBUG=WARN in the environment says more", text,
                        api_.error_string(result), more && *more ? ": " : "", more ? more : ""));
}

void Link::fail_with(Fault fault, const std::string& words) {
  try {
    watch_->fail_now(fault, words);
  } catch (const Error& error) {
    report(error);
  }
  std::abort();  // fail_now throws
}

void Link::check() {
  try {
    watch_->check();
  } catch (const Error& error) {
    report(error);
  }
}

// The ranks that failed as this one did answer a roll call on the host's side; the silent one is the culprit.
void Link::report(const Error& error) {
  const std::string mine = watch_->under_way();
  const std::vector<std::optional<std::string>> answers =
      world_->roll_call(mine.empty() ? "nothing under way" : "waiting in " + mine, roll_call_seconds());
  std::map<std::string, std::vector<int>> said;
  std::vector<int> silent;
  for (size_t rank = 0; rank < answers.size(); ++rank) {
    if (answers[rank]) {
      said[*answers[rank]].push_back(static_cast<int>(rank));
    } else {
      silent.push_back(static_cast<int>(rank));
    }
  }
  std::string text = error.what();
  if (!silent.empty())
    text += fmt::format("; rank{} {} of the world {} not answer within {:g} s: hanging, dead or elsewhere",
                        silent.size() == 1 ? "" : "s", list_ranks(silent), silent.size() == 1 ? "does" : "do",
                        roll_call_seconds());
  for (const auto& [words, ranks] : said)
    text += fmt::format("; rank{} {}: {}", ranks.size() == 1 ? "" : "s", list_ranks(ranks), words);
  watch_->tell(text);
  throw Error(error.fault(), text);
}

char* Link::scratch(int64_t bytes) {
  if (bytes > scratch_bytes_) {
    if (scratch_ != nullptr) {
      cuda::check(cudaStreamSynchronize(compute()), "cudaStreamSynchronize");
      check();
      backend_.memory().release(scratch_, scratch_bytes_);
    }
    scratch_ = static_cast<char*>(backend_.memory().allocate(bytes));
    scratch_bytes_ = bytes;
  }
  return scratch_;
}

}  // namespace drover::nccl
