#include "launch/serve/request_thread.h"

#include <malloc.h>

namespace drover {

// Memory of requests that were as large is given back, which glibc would keep for the next ones. Its threshold is set
// once: by itself it rises to the largest piece that was freed, and bodies would then lie scattered in the heap.
constexpr size_t kLargeBytes = 1 << 20;

RequestThread::RequestThread(size_t most_waiting, size_t most_bytes)
    : most_waiting_(most_waiting), most_bytes_(most_bytes), thread_([this] { run(); }) {
  mallopt(M_MMAP_THRESHOLD, kLargeBytes);
}

RequestThread::~RequestThread() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    arrived_.notify_one();
  }
  thread_.join();
}

bool RequestThread::post(std::function<void()> work, size_t bytes) {
  const std::lock_guard lock(mutex_);
  if (waiting_.size() >= most_waiting_ || (bytes_ > 0 && bytes_ + bytes > most_bytes_)) return false;
  waiting_.push_back({std::move(work), bytes});
  bytes_ += bytes;
  arrived_.notify_one();
  return true;
}

void RequestThread::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    arrived_.wait(lock, [&] { return ending_ || !waiting_.empty(); });
    if (ending_) return;
    Work work = std::move(waiting_.front());
    waiting_.pop_front();
    bytes_ -= work.bytes;
    lock.unlock();
    work.run();
    work.run = {};
    if (work.bytes > kLargeBytes) malloc_trim(0);
    lock.lock();
  }
}

}  // namespace drover
