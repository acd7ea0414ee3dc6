#include "launch/calibration.h"

#include <ctime>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "configs/schema.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "kernels/cpu/isa.h"
#include "launch/open_device.h"
#include "launch/version.h"
#include "trainer/planning/calibrate.h"

namespace drover {

namespace {

std::string cpu_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "CPU";
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[16] = {};
  (void)std::strftime(text, sizeof text, "%Y-%m-%d", &parts);
  return text;
}

// Before minutes are spent on what will lie there.
void check_writable(const fs::path& file) {
  std::error_code ignored;
  if (!file.parent_path().empty()) fs::create_directories(file.parent_path(), ignored);
  const fs::path probe = file.string() + ".probe";
  write_text(probe, "");
  fs::remove(probe, ignored);
}

}  // namespace

MeasuredMachine this_machine(DeviceKind device, int ranks, int threads) {
  if (device == DeviceKind::cuda) return {.device = cuda_identity(0).name, .ranks = ranks, .threads = 1};
  return {.device = fmt::format("{} ({})", cpu_name(), cpu::name_of(cpu::isa())), .ranks = ranks, .threads = threads};
}

Exit calibrate_machine(const Process& process, const std::string& out, bool json) {
  check_same_program(process);
  MeshShape shape;
  shape[Axis::dp] = process.mpi.size;
  const Mesh mesh = make_mesh(shape);
  const Recipe recipe;  // the device that a run takes by itself
  const Device device = open_device(mesh, recipe, process);
  const MeasuredMachine machine = this_machine(device_of(recipe), process.mpi.local_size, process.threads);
  const fs::path file = out.empty() ? calibration_file(machine) : fs::path(out);
  log::info("{}: {} rank{} × {} thread{}; this takes up to two minutes, and the machine should do nothing else",
            machine.device, machine.ranks, machine.ranks == 1 ? "" : "s", machine.threads,
            machine.threads == 1 ? "" : "s");
  together(*mesh.world, [&] {
    if (process.mpi.rank == 0) check_writable(file);
  });
  Calibration c = calibrate(device, machine, usual_measurements(device.backend->traits().own_memory),
                            [](const std::string& what) { log::info("  {}", what); });
  c.version = program_version(), c.date = today();
  together(*mesh.world, [&] {
    if (process.mpi.rank == 0) write_calibration(c, file);
  });
  if (process.mpi.rank != 0) return Exit::done;
  const double best = Rates({}, c.ops, {}).best_product();
  if (json) {
    std::cout << nlohmann::ordered_json{{"file", file.string()},
                                        {"device", machine.device},
                                        {"ranks", machine.ranks},
                                        {"threads", machine.threads},
                                        {"seconds", c.seconds},
                                        {"ops", c.ops.size()},
                                        {"best_product_flops", best},
                                        {"read_bytes_per_second", c.read},
                                        {"write_bytes_per_second", c.write}}
                     .dump()
              << '\n';
    return Exit::done;
  }
  std::cout << fmt::format(
      "{} kinds of calls in {:.0f} s; the fastest product reaches {:.0f} GFLOP/s; the disk reads {:.2f} GB/s "
      "and takes checkpoints at {:.2f}\n"
      "written: {}\n",
      c.ops.size(), c.seconds, best * 1e-9, c.read * 1e-9, c.write * 1e-9, file.string());
  return Exit::done;
}

}  // namespace drover
