// The flight recorder of a process's NCCL calls, and the thread that watches them: an error that NCCL reports, or a
// call that does not end by the deadline, becomes a failure. Then every communicator is aborted, so that whoever waits
// for the device wakes, and the issuing thread throws the failure at its next check. If it does not come by, the
// process ends itself with the failure's code: no rank outlives a lost peer.
//   A call's deadline runs from when it became the oldest that is under way.
#pragma once
#include <cuda_runtime_api.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/nccl/nccl_api.h"

namespace drover::nccl {

struct WatchSettings {
  int device = 0;
  double deadline_seconds = 600;
  double abort_seconds = 10;   // ncclCommAbort itself may hang
  double notice_seconds = 20;  // how long the issuing thread has to come by after a failure
  double leave_seconds = 60;   // and from then on to end the communicators: it holds a roll call, and frees what it has
};

class Watch {
 public:
  Watch(const Api& api, const WatchSettings& settings);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  bool stop();  // asks nothing more; whether it had failed, so that the communicators are aborted. Nothing may be under
                // way, or it has failed
  // From here on `comm` is asked for errors, and aborted with the others; it may still be starting.
  void add(ncclComm_t comm, const std::string& axis);
  // Around the issue of one call, all from one thread. `call`: "tp: all_reduce of 4096 bytes".
  void begin(std::string call);
  void issued(cudaStream_t stream);

  ncclResult_t state_of(ncclComm_t comm);  // what NCCL says of it; throws the failure, if there is one: an aborted
                                           // communicator is asked nothing
  void check();                            // throws the failure, if there is one
  bool failed() const;
  void tell(const std::string& words);  // what is known of the failure by now, for the last words of a process that
                                        // does not end by itself
  std::string under_way()
      const;  // the oldest call that has not ended, or had not when the failure came, with its number; empty: none
  void fail_now(Fault fault, std::string words);  // found by the issuing thread: aborts and throws

 private:
  struct Call {
    std::string text;
    int64_t number;
    cudaEvent_t done = nullptr;  // null: not issued yet
  };
  void run();
  void watch_calls(std::unique_lock<std::mutex>& lock);
  void abort_all(std::unique_lock<std::mutex>& lock);
  bool ended(const Call& call) const;
  void retire();
  std::string oldest() const;

  const Api& api_;
  const WatchSettings settings_;
  const std::thread::id issuer_ = std::this_thread::get_id();
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::pair<ncclComm_t, std::string>> comms_;
  std::deque<Call> calls_;
  std::vector<cudaEvent_t> free_events_;
  int64_t count_ = 0;
  std::chrono::steady_clock::time_point oldest_since_ = std::chrono::steady_clock::now();
  std::optional<Error> failure_;
  std::string stuck_;  // under way when the failure came
  bool aborted_ = false, noticed_ = false, ending_ = false;
  std::thread thread_;
};

}  // namespace drover::nccl
