// Fibers: stacks and a switch of the callee-saved registers (System V x86-64), because ucontext makes two system calls
// a switch.
#include <fmt/core.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "emulated_device.h"

asm(R"(
.text
.globl drover_fiber_switch
.type drover_fiber_switch, @function
drover_fiber_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size drover_fiber_switch, .-drover_fiber_switch
)");
extern "C" void drover_fiber_switch(void** save_here, void* go_there);

namespace drover::cuda::emulation {

thread_local Place place;

namespace {

constexpr size_t kStack = 128 << 10;
constexpr size_t kMostThreads = 1024;

enum class Waits { no, block, warp, done };

struct Fiber {
  void* stack_pointer = nullptr;
  Waits waits = Waits::no;
  unsigned mask = 0;     // of the warp operation it waits in
  uint64_t value = 0;    // left there
  uint64_t answers[32];  // copied when the operation completes
};

struct Block {
  std::vector<Fiber> fibers;
  char* stacks = nullptr;
  void* scheduler = nullptr;
  size_t running = 0;
  const std::function<void()>* thread = nullptr;
  const char* name = "";
  dim3 shape;
  alignas(128) char shared[256 << 10];
};
Block* block() {
  static Block* b = [] {
    Block* made = new Block;
    made->stacks = static_cast<char*>(mmap(nullptr, kStack * kMostThreads, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    return made;
  }();
  return b;
}

void give_turn_away() { drover_fiber_switch(&block()->fibers[block()->running].stack_pointer, block()->scheduler); }

void fiber_main() {
  (*block()->thread)();
  block()->fibers[block()->running].waits = Waits::done;
  give_turn_away();
  std::abort();
}

void start(Fiber& fiber, char* stack_top) {
  void** top = reinterpret_cast<void**>(stack_top);
  *--top = nullptr;  // where fiber_main would return to; keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(&fiber_main);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.stack_pointer = top;
  fiber.waits = Waits::no;
}

[[noreturn]] void stuck(const char* why) {
  std::fprintf(stderr, "kernel %s: %s\n", block()->name, why);
  std::abort();
}

// Ends every warp operation whose lanes have all come (lanes that returned count as come).
bool complete_warps() {
  std::vector<Fiber>& all = block()->fibers;
  bool any = false;
  for (size_t first = 0; first < all.size(); first += 32) {
    const size_t lanes = std::min<size_t>(32, all.size() - first);
    for (size_t lane = 0; lane < lanes; ++lane) {
      Fiber& f = all[first + lane];
      if (f.waits != Waits::warp) continue;
      bool complete = true;
      for (size_t other = 0; other < lanes; ++other) {
        if ((f.mask >> other & 1) == 0) continue;
        const Fiber& o = all[first + other];
        complete = complete && ((o.waits == Waits::warp && o.mask == f.mask) || o.waits == Waits::done);
      }
      if (!complete) continue;
      uint64_t answers[32] = {};
      for (size_t other = 0; other < lanes; ++other) answers[other] = all[first + other].value;
      const unsigned mask = f.mask;
      for (size_t other = 0; other < lanes; ++other) {
        Fiber& o = all[first + other];
        if ((mask >> other & 1) == 0 || o.waits != Waits::warp) continue;
        std::copy(answers, answers + 32, o.answers);
        o.waits = Waits::no;
      }
      any = true;
    }
  }
  return any;
}

bool complete_barrier() {
  bool any = false;
  for (const Fiber& f : block()->fibers) {
    if (f.waits != Waits::block && f.waits != Waits::done) return false;
    any = any || f.waits == Waits::block;
  }
  for (Fiber& f : block()->fibers) {
    if (f.waits == Waits::block) f.waits = Waits::no;
  }
  return any;
}

void run_block() {
  Block& b = *block();
  for (size_t i = 0; i < b.fibers.size(); ++i) start(b.fibers[i], b.stacks + (i + 1) * kStack);
  while (true) {
    bool ran = false, alive = false;
    for (size_t i = 0; i < b.fibers.size(); ++i) {
      if (b.fibers[i].waits != Waits::no) continue;
      b.running = i;
      place.thread = {static_cast<unsigned>(i % b.shape.x), static_cast<unsigned>(i / b.shape.x % b.shape.y),
                      static_cast<unsigned>(i / b.shape.x / b.shape.y)};
      drover_fiber_switch(&b.scheduler, b.fibers[i].stack_pointer);
      ran = true;
    }
    for (const Fiber& f : b.fibers) alive = alive || f.waits != Waits::done;
    if (!alive) return;
    if (complete_warps()) continue;
    if (complete_barrier()) continue;
    if (!ran) stuck("threads wait for others that never come (a barrier or shuffle under a condition?)");
  }
}

}  // namespace

std::vector<std::string>* done_by_device = nullptr;

void run(const char* name, dim3 grid, dim3 block_dim, size_t shared_bytes, const std::function<void()>& thread) {
  static std::mutex one_at_a_time;  // ranks may be threads
  const std::lock_guard lock(one_at_a_time);
  if (done_by_device != nullptr) {
    done_by_device->push_back(
        fmt::format("{} {}x{}x{} of {}x{}x{}", name, grid.x, grid.y, grid.z, block_dim.x, block_dim.y, block_dim.z));
  }
  Block& b = *block();
  b.name = name;
  b.thread = &thread;
  b.shape = block_dim;
  const size_t threads = size_t{block_dim.x} * block_dim.y * block_dim.z;
  if (threads == 0 || threads > kMostThreads) stuck("a block has between 1 and 1024 threads");
  if (grid.y > 65535 || grid.z > 65535) stuck("a grid has at most 65535 blocks in y and z");
  if (shared_bytes > (227 << 10)) stuck("a block has at most 227 KiB of shared memory");
  b.fibers.resize(threads);
  place.block_dim = block_dim;
  place.grid_dim = grid;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        place.block = {x, y, z};
        std::fill(b.shared, b.shared + shared_bytes,
                  static_cast<char>(0xff));  // NaN: what is read must have been written
        run_block();
      }
    }
  }
}

char* dynamic_shared() { return block()->shared; }

void barrier() {
  block()->fibers[block()->running].waits = Waits::block;
  give_turn_away();
}

uint64_t exchange(unsigned mask, uint64_t mine, int from) {
  Fiber& f = block()->fibers[block()->running];
  const size_t live = std::min<size_t>(32, block()->fibers.size() - block()->running / 32 * 32);
  if (live < 32 && mask == 0xffffffffu) stuck("a warp operation over all lanes in a warp that has fewer threads");
  f.mask = mask;
  f.value = mine;
  f.waits = Waits::warp;
  give_turn_away();
  return f.answers[from & 31];
}

unsigned vote(unsigned mask, bool predicate) {
  exchange(mask, predicate ? 1 : 0, 0);
  const Fiber& f = block()->fibers[block()->running];
  unsigned result = 0;
  for (unsigned i = 0; i < 32; ++i) result |= (mask >> i & 1) != 0 && f.answers[i] != 0 ? 1u << i : 0u;
  return result;
}

}  // namespace drover::cuda::emulation
