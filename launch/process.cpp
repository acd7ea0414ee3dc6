#include "launch/process.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <vector>

#include "kernels/base/file.h"
#include "kernels/base/hash.h"
#include "kernels/base/log.h"
#include "kernels/base/program.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/launched.h"
#include "kernels/devices/devices.h"
#include "launch/waiting.h"
#include "trainer/run/stop_signal.h"

namespace drover {

namespace {

// The cores this job may use on the node: everything its cpuset allows, whatever single core a launcher bound the rank
// to.
std::vector<int> allowed_cores() {
  cpu_set_t all;
  CPU_ZERO(&all);
  for (int i = 0; i < CPU_SETSIZE; ++i) CPU_SET(i, &all);
  sched_setaffinity(0, sizeof all, &all);
  sched_getaffinity(0, sizeof all, &all);
  std::vector<int> cores;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &all)) cores.push_back(i);
  }
  return cores;
}

constexpr StopPlan kSaving{.exit_code = [](StopReason stop) { return static_cast<int>(exit_of(stop)); },
                           .at_once = "no step was done, so nothing is lost. Start the same command again to go on.",
                           .noted = "the run is saved after this step"};

// launch/run repeats a signal until it is heard, so that the second one is its own business.
StopPlan draining() {
  StopPlan plan{.exit_code = [](StopReason) { return static_cast<int>(Exit::done); },
                .at_once = "nothing was served yet.",
                .noted = "requests that were taken are answered, new ones are refused; once more ends it at once",
                .second = [](StopReason) { return static_cast<int>(Exit::interrupted); }};
  if (std::getenv("DROVER_LAUNCH") != nullptr) plan.second = nullptr;
  return plan;
}

int take_cores(const MpiWorld& world) {
  const std::vector<int> cores = allowed_cores();
  const int n = static_cast<int>(cores.size()), ranks = world.local_size;
  if (const char* text = std::getenv("OMP_NUM_THREADS")) {
    const int threads = std::atoi(text);
    if (threads >= 1) return threads;
  }
  if (ranks > n) return 1;  // oversubscribed: the scheduler deals the cores
  const int begin = n * world.local_rank / ranks, end = n * (world.local_rank + 1) / ranks;
  cpu_set_t mine;
  CPU_ZERO(&mine);
  for (int i = begin; i < end; ++i) CPU_SET(cores[static_cast<size_t>(i)], &mine);
  sched_setaffinity(0, sizeof mine, &mine);
  return std::max(1, end - begin);
}

}  // namespace

void prepare_process() {
  set_exit_codes([](Fault fault) { return static_cast<int>(exit_of(fault)); });
  open_standard_descriptors();
  hold_stop_signals();
}

Process start_process(int* argc, char*** argv, OnStop on_stop) {
  Process process;
  switch (on_stop) {
    case OnStop::save: take_stop_signals(launched_rank(), kSaving); break;
    case OnStop::drain: take_stop_signals(launched_rank(), draining()); break;
    case OnStop::end: release_stop_signals(); break;
  }
  if (launched_by_mpi()) {
    const Watchdog limit = limit_of_mpi("MPI's start", launched_rank(), launched_ranks());
    process.mpi = start_mpi(argc, argv);
    process.world = make_world_communicator();
  } else {
    process.world = make_self_communicator("world");
  }
  log::set_rank(process.mpi.rank, process.mpi.size);
  if (std::getenv("DROVER_LAUNCH") != nullptr && process.mpi.rank == 0)
    log::put(
        "\x1e"
        "drover: ranks started\n");  // for launch/rank-output
  process.threads = take_cores(process.mpi);
  return process;
}

Mesh make_mesh(const MeshShape& shape) {
  if (!launched_by_mpi()) return make_self_mesh();
  const Watchdog limit = limit_of_mpi("making the mesh of the ranks", log::rank(), launched_ranks());
  return make_mpi_mesh(shape);
}

void check_same_program(const Process& process) {
  const std::string module = cuda_module_file();
  check_same(*process.world, "the program",
             sha256_file("/proc/self/exe") + (module.empty() ? "" : sha256_file(module)));
}

namespace {

void leave_mpi(const Process& process) {
  if (!launched_by_mpi()) return;
  const Watchdog limit = limit_of_mpi("MPI's end", process.mpi.rank, process.mpi.size);
  finish_mpi();
}

}  // namespace

int guarded(const Process& process, const std::function<Exit()>& verb) {
  const bool several = process.mpi.size > 1;
  try {
    const Exit code = verb();
    if (!std::cout.flush())
      fail(Fault::io, "the result could not be written to stdout; is the disk full, or its reader gone?");
    ignore_stops();
    leave_mpi(process);
    return static_cast<int>(code);
  } catch (const fs::filesystem_error& error) {
    ignore_stops();
    log::write_any(fmt::format("drover: {}: {}", error.path1().string(), error.code().message()));
    if (several) abort_all(static_cast<int>(Exit::io));
    return static_cast<int>(Exit::io);
  } catch (const Error& error) {
    ignore_stops();
    const Fault fault = error.fault();
    const bool agreed = fault != Fault::internal && fault != Fault::rank_hangs && fault != Fault::rank_lost;
    if (agreed || !several) {
      log::write(fmt::format("drover: {}", error.what()));
      leave_mpi(process);
      return static_cast<int>(exit_of(fault));
    }
    if (fault == Fault::rank_hangs) {
      say_waiting(error.what(), process.mpi.rank, process.mpi.size);
    } else {
      log::write_any(fmt::format("drover: {}", error.what()));
    }
    abort_all(static_cast<int>(exit_of(fault)));
  } catch (const std::exception& error) {
    ignore_stops();
    log::write_any(fmt::format("drover: internal error: {}", error.what()));
    if (several) abort_all(static_cast<int>(Exit::internal));
    return static_cast<int>(Exit::internal);
  }
}

}  // namespace drover
