#include "kernels/comm/deadline.h"

#include <sched.h>

#include <cstdlib>
#include <thread>

namespace drover {

namespace {

constexpr int kSpins = 64;
// Long enough for a few megabytes between two ranks: their copies make progress only while both ends ask for it.
constexpr std::chrono::milliseconds kYieldFor{5};
constexpr std::chrono::microseconds kSleep{50};

}  // namespace

double comm_deadline_seconds() {
  if (const char* text = std::getenv("DROVER_COMM_TIMEOUT_S")) {
    char* end = nullptr;
    const double seconds = std::strtod(text, &end);
    if (end != text && *end == '\0' && seconds > 0 && seconds < 1e9) return seconds;
  }
  return 600;
}

Deadline::Deadline(double seconds)
    : start_(std::chrono::steady_clock::now()),
      end_(start_ +
           std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(seconds))) {}

void Deadline::pause() {
  if (pauses_ < kSpins) {
    ++pauses_;
  } else if (std::chrono::steady_clock::now() - start_ < kYieldFor) {
    ::sched_yield();
  } else {
    std::this_thread::sleep_for(kSleep);
  }
}

}  // namespace drover
