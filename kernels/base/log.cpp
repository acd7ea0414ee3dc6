#include "kernels/base/log.h"

#include <atomic>
#include <cstdio>
#include <string>

#include "kernels/base/error.h"

namespace drover::log {

namespace {

std::atomic<int> current_rank{0};
std::atomic<int> current_ranks{1};

// One call per line, so that the lines of several ranks do not mix.
void put(std::string line) {
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

}  // namespace

void set_rank(int rank, int ranks) {
  current_rank = rank;
  current_ranks = ranks;
}

int rank() { return current_rank; }

void write(std::string_view line) {
  if (current_rank == 0) put(std::string(line));
}

void write_any(std::string_view line) {
  put(current_ranks > 1 ? fmt::format("rank {}: {}", current_rank.load(), line) : std::string(line));
}

}  // namespace drover::log
