// The thread that reads requests: parsing, templates and tokenizing take milliseconds to seconds, which neither the
// I/O thread nor the passes have. One after another, in order of arrival. From the first one on, every piece of memory
// of a MiB and more is mapped by itself in this process, so that large requests leave nothing behind (mallopt(3)).
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace drover {

class RequestThread {
 public:
  RequestThread(size_t most_waiting, size_t most_bytes);
  ~RequestThread();  // ends what it does; what waits is dropped
  RequestThread(const RequestThread&) = delete;
  RequestThread& operator=(const RequestThread&) = delete;

  // False, and nothing done, where too many wait, or too many bytes with them. `work` throws nothing, and holds so many
  // bytes until it is done.
  bool post(std::function<void()> work, size_t bytes = 0);

 private:
  struct Work {
    std::function<void()> run;
    size_t bytes;
  };
  void run();

  const size_t most_waiting_, most_bytes_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Work> waiting_;
  size_t bytes_ = 0;  // of those
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace drover
