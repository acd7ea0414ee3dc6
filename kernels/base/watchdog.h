// A thread that ends the process when no beat came for too long: a rank that hangs would otherwise keep the others
// waiting, and a machine occupied. It makes no MPI and no HDF5 call. Waiting for a peer has its own deadline
// (kernels/comm), which comes first and can name the peer.
#pragma once
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace drover {

class Watchdog {
 public:
  // `who`: for the message, as "rank 3". The process ends as of Fault::rank_hangs.
  Watchdog(std::string who, std::chrono::duration<double> limit);
  // The same, after `late`, which is called on the watchdog's thread and says what took too long.
  Watchdog(std::chrono::duration<double> limit, std::function<void()> late);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // Something was done; what comes next is `doing`, as "step 12".
  void beat(std::string doing);

 private:
  void watch();

  const std::chrono::duration<double> limit_;
  const std::function<void()> late_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  std::string doing_ = "starting";
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace drover
