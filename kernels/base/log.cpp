#include "kernels/base/log.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <string>

#include "kernels/base/error.h"

namespace drover::log {

namespace {

std::atomic<int> current_rank{0};
std::atomic<int> current_ranks{1};

constexpr int kPatience_ms = 1000;
std::atomic<bool> stalled{false};  // the reader did not come back within that time: nothing waits for it any more

bool writable() {
  pollfd reader{STDERR_FILENO, POLLOUT, 0};
  int ready = 0;
  do ready = poll(&reader, 1, stalled ? 0 : kPatience_ms);
  while (ready < 0 && errno == EINTR);
  stalled = ready == 0;
  return ready != 0;
}

}  // namespace

void set_rank(int rank, int ranks) {
  current_rank = rank;
  current_ranks = ranks;
}

int rank() { return current_rank; }

void put(std::string_view text) {
  // A pipe that is writable takes PIPE_BUF bytes, in one piece: the lines of several ranks do not mix.
  while (!text.empty() && writable()) {
    const ssize_t put = ::write(STDERR_FILENO, text.data(), std::min<size_t>(text.size(), PIPE_BUF));
    if (put < 0 && errno != EINTR && errno != EAGAIN) return;
    if (put > 0) text.remove_prefix(static_cast<size_t>(put));
  }
}

void write(std::string_view line) {
  if (current_rank == 0) put(std::string(line) + '\n');
}

void write_any(std::string_view line) {
  put(current_ranks > 1 ? fmt::format("rank {}: {}\n", current_rank.load(), line) : std::string(line) + '\n');
}

}  // namespace drover::log
