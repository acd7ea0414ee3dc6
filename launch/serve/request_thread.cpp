#include "launch/serve/request_thread.h"

namespace drover {

RequestThread::RequestThread(size_t most_waiting) : most_waiting_(most_waiting), thread_([this] { run(); }) {}

RequestThread::~RequestThread() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    arrived_.notify_one();
  }
  thread_.join();
}

bool RequestThread::post(std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  if (waiting_.size() >= most_waiting_) return false;
  waiting_.push_back(std::move(work));
  arrived_.notify_one();
  return true;
}

void RequestThread::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    arrived_.wait(lock, [&] { return ending_ || !waiting_.empty(); });
    if (ending_) return;
    const std::function<void()> work = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    work();
    lock.lock();
  }
}

}  // namespace drover
