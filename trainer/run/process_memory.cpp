#include "trainer/run/process_memory.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "kernels/base/error.h"
#include "kernels/base/host_name.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"

namespace drover {

namespace {

// What a process grows by after the inputs are open, beyond what is counted: libraries, stacks of threads, memory of
// the allocator; fitted to the recipes of tests/bench/plan.
constexpr int64_t kLibraryBytes = int64_t{20} << 20;

struct Need {  // of one rank
  char host[256] = {};
  int64_t bytes = 0;
};

// Collective. The needs of all ranks on this machine.
std::vector<Need> needs_here(Communicator& world, int64_t bytes) {
  Need mine{.bytes = bytes};
  host_name().copy(mine.host, sizeof mine.host - 1);
  std::vector<Need> needs = gather(world, mine);
  std::erase_if(needs, [&](const Need& other) { return std::string_view(other.host) != mine.host; });
  return needs;
}

// The value of a line "key: 123 kB", in bytes; 0 where there is none.
int64_t kilobyte_line(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(key, 0) == 0) return std::stoll(line.substr(line.find(':') + 1)) * 1024;
  }
  return 0;
}

}  // namespace

int64_t peak_process_bytes() { return kilobyte_line("/proc/self/status", "VmHWM:"); }
int64_t current_process_bytes() { return kilobyte_line("/proc/self/status", "VmRSS:"); }

int64_t available_machine_bytes() {
  const int64_t of_machine = kilobyte_line("/proc/meminfo", "MemAvailable:");
  rlimit room{};
  if (::getrlimit(RLIMIT_AS, &room) != 0 || room.rlim_cur == RLIM_INFINITY) return of_machine;
  const int64_t mapped = kilobyte_line("/proc/self/status", "VmSize:");
  return std::min(of_machine, std::max<int64_t>(0, static_cast<int64_t>(room.rlim_cur) - mapped));
}

int64_t free_bytes_of_rank(Communicator& world, Backend& backend) {
  const int64_t ranks_here = static_cast<int64_t>(needs_here(world, 0).size());
  const int64_t of_device = backend.memory().free_bytes();
  return of_device < INT64_MAX ? of_device : available_machine_bytes() / ranks_here;
}

int64_t held_process_bytes() {
  malloc_trim(0);
  return current_process_bytes();
}

int64_t predicted_process_bytes(int64_t held, const ArenaBytes& arenas, Backend& backend, int64_t tokens) {
  const int64_t arenas_here = backend.memory().process_bytes(arenas.total() + backend.workspace_bytes(tokens));
  return held + arenas_here + kLibraryBytes;
}

void check_fits_memory(const ArenaBytes& arenas, Backend& backend) {
  const int64_t needed = arenas.total() + backend.workspace_bytes() -
                         backend.memory().process_bytes(arenas.total() + backend.workspace_bytes());
  const int64_t there_is = backend.memory().free_bytes();
  if (needed <= there_is) return;
  fail(Fault::bad_recipe,
       "this rank needs {:.1f} GiB of its GPU's memory, and {:.1f} GiB are free; shard further (parallel.tp, "
       "parallel.pp), lower train.micro_batch_size or data.max_length, or "
       "set memory.activation_checkpointing: full",
       static_cast<double>(needed) / (1 << 30), static_cast<double>(there_is) / (1 << 30));
}

int64_t peak_bytes(Backend& backend) {
  const int64_t held = backend.memory().held_bytes();
  return held > 0 ? held : peak_process_bytes();
}

void check_fits_machine(Communicator& world, int64_t predicted_bytes) {
  const std::vector<Need> needs = needs_here(world, predicted_bytes);
  int64_t needed = 0;
  for (const Need& need : needs) needed += need.bytes;
  together(world, [&] {
    const int64_t there_is = kilobyte_line("/proc/meminfo", "MemTotal:");
    if (there_is == 0 || needed <= there_is) return;
    fail(Fault::bad_recipe,
         "the {} ranks on {} need about {:.1f} GiB of memory, and it has {:.1f} GiB; spread them over more machines or "
         "shard further (parallel.tp, parallel.pp), or lower train.micro_batch_size or data.max_length, or set "
         "memory.activation_checkpointing: full",
         needs.size(), needs.front().host, static_cast<double>(needed) / (1 << 30),
         static_cast<double>(there_is) / (1 << 30));
  });
}

}  // namespace drover
