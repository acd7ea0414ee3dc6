// The thread that reads requests: parsing, templates and tokenizing take milliseconds to seconds, which neither the
// I/O thread nor the passes have. One after another, in order of arrival.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace drover {

class RequestThread {
 public:
  explicit RequestThread(size_t most_waiting);
  ~RequestThread();  // ends what it does; what waits is dropped
  RequestThread(const RequestThread&) = delete;
  RequestThread& operator=(const RequestThread&) = delete;

  bool post(std::function<void()> work);  // false, and nothing done, where too many wait. `work` throws nothing

 private:
  void run();

  const size_t most_waiting_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::function<void()>> waiting_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace drover
