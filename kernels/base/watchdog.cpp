#include "kernels/base/watchdog.h"

#include <fmt/format.h>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/base/program.h"

namespace drover {

Watchdog::Watchdog(std::string who, std::chrono::duration<double> limit)
    : Watchdog(limit, [this, limit, who = std::move(who)] {
        log::put(fmt::format(
            "drover: {} hangs: nothing was done for {:.0f} s since \"{}\". The last checkpoint is untouched: "
            "start the same command again. If a step really takes that long, raise "
            "DROVER_COMM_TIMEOUT_S.\n",
            who, limit.count(), doing_));
      }) {}

Watchdog::Watchdog(std::chrono::duration<double> limit, std::function<void()> late)
    : limit_(limit), late_(std::move(late)), thread_([this] { watch(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Watchdog::beat(std::string doing) {
  const std::lock_guard lock(mutex_);
  last_ = std::chrono::steady_clock::now();
  doing_ = std::move(doing);
}

void Watchdog::watch() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    const auto end = last_ + std::chrono::duration_cast<std::chrono::steady_clock::duration>(limit_);
    if (std::chrono::steady_clock::now() >= end) {
      late_();
      end_process(Fault::rank_hangs);
    }
    changed_.wait_until(lock, end);
  }
}

}  // namespace drover
