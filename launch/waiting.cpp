#include "launch/waiting.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "kernels/base/log.h"
#include "kernels/comm/deadline.h"

namespace drover {

namespace {
constexpr std::chrono::milliseconds kMoment{1000};  // waits for one rank end about as soon
}

void say_waiting(const std::string& text, int rank, int ranks) {
  log::put(fmt::format("rank {}: drover: {}\n", rank, text));
  if (std::getenv("DROVER_LAUNCH") != nullptr)
    log::put(
        fmt::format("\x1e"
                    "drover: rank {} of {} waits\n",
                    rank, ranks));
  std::this_thread::sleep_for(kMoment);
}

Watchdog limit_of_mpi(const char* what, int rank, int ranks) {
  const double seconds = comm_deadline_seconds();
  return Watchdog(std::chrono::duration<double>(seconds), [=] {
    say_waiting(fmt::format("{} has taken {:g} s, and this rank still waits: a rank that does not say so hangs, or its "
                            "node cannot be reached; DROVER_COMM_TIMEOUT_S sets the time",
                            what, seconds),
                rank, ranks);
  });
}

}  // namespace drover
