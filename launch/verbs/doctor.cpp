// drover doctor: is this machine ready for a run, and what to do if not; under a launcher the ranks (ranks_doctor.h).
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "kernels/cpu/isa.h"
#include "kernels/devices/devices.h"
#include "launch/calibration.h"
#include "launch/ranks_doctor.h"
#include "launch/verbs/verb.h"
#include "launch/version.h"

namespace drover {

namespace {

// Room for the sample model, its run and a merged copy.
constexpr double kLeastMemoryGib = 2, kLeastDiskGib = 2, kLeastSharedGib = 0.06;

double free_gib(const char* path) {
  struct statvfs disk {};
  if (statvfs(path, &disk) != 0) return 0;
  return static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize) / (1 << 30);
}

bool on_path(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (access((folder + "/" + program).c_str(), X_OK) == 0) return true;
  }
  return false;
}

std::string products_of_cpu() {
  if (!__builtin_cpu_supports("avx2")) return "without AVX2 (slow)";
  switch (cpu::isa()) {
    case cpu::Isa::amx: return "AMX";
    case cpu::Isa::avx512_bf16: return "AVX-512 with bf16";
    case cpu::Isa::avx512: return "AVX-512 (bf16 is multiplied in fp32)";
    case cpu::Isa::avx2: break;
  }
  return "AVX2 (bf16 is multiplied in fp32: slower)";
}

Exit diagnose_machine(const Process& process, bool json) {
  const double memory =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE)) / (1 << 30);
  const double disk = free_gib("."), shared = free_gib("/dev/shm");
  const std::string isa = products_of_cpu();
  const bool mpirun = on_path("mpirun");

  std::vector<std::string> advice;
  if (!mpirun)
    advice.push_back("mpirun is not on the PATH: install Open MPI (Debian: openmpi-bin), or runs have one rank");
  if (memory < kLeastMemoryGib)
    advice.push_back(
        fmt::format("{:.1f} GiB of memory is little: the sample model wants {:.0f}", memory, kLeastMemoryGib));
  if (disk < kLeastDiskGib)
    advice.push_back(fmt::format(
        "{:.1f} GiB free in this directory is little: make room, or point output.dir to another disk", disk));
  if (mpirun && shared < kLeastSharedGib)
    advice.push_back(
        "/dev/shm is small or missing, and ranks of one machine speak through it: enlarge it (docker: --shm-size=1g)");
  const bool ready = advice.empty();
  const CudaStatus cuda = cuda_status();

  if (json) {
    std::cout << nlohmann::ordered_json{{"ready", ready},
                                        {"cores", process.threads},
                                        {"cpu", isa},
                                        {"memory_gib", memory},
                                        {"free_disk_gib", disk},
                                        {"free_shm_gib", shared},
                                        {"mpirun", mpirun},
                                        {"cuda", cuda.usable},
                                        {"gpu", cuda.gpu},
                                        {"why_not_cuda", cuda.why_not},
                                        {"advice", advice}}
                     .dump()
              << '\n';
    return ready ? Exit::done : Exit::missing_input;
  }
  std::cout << fmt::format(
      "cores     {}\nCPU       {}\nmemory    {:.1f} GiB\ndisk      {:.1f} GiB free here\n/dev/shm  {:.1f} GiB "
      "free\nmpirun    {}\nGPU       {}\n{}",
      process.threads, isa, memory, disk, shared, mpirun ? "found" : "not found",
      cuda.usable        ? cuda.gpu
      : cuda.gpu.empty() ? cuda.why_not
                         : cuda.gpu + ": " + cuda.why_not,
      version_text());
  for (const std::string& line : advice) std::cout << "NOT READY: " << line << '\n';
  if (ready) std::cout << "ready: device " << (cuda.usable ? "cuda" : "cpu") << '\n';
  return ready ? Exit::done : Exit::missing_input;
}

}  // namespace

Verb doctor_verb(CLI::App& app) {
  struct Arguments {
    std::string recipe, out;
    bool json = false, calibrate = false;
  };
  const auto a = std::make_shared<Arguments>();
  CLI::App* options = app.add_subcommand(
      "doctor",
      "is this machine ready, and what to do if not; under launch/run: are the ranks, and how fast do they speak");
  options->add_option("--recipe", a->recipe, "under launch/run: test the axes of this recipe's mesh");
  CLI::Option* calibrates = options->add_flag(
      "--calibrate", a->calibrate, "measure this machine for drover plan; under launch/run: as its ranks share it");
  options->add_option("--out", a->out, "the file that --calibrate writes (default: where plan looks for it)")
      ->needs(calibrates);
  calibrates->excludes(options->get_option("--recipe"));
  options->add_flag("--json", a->json, "print the result as JSON");
  options->footer("example: launch/run -n 8 drover doctor --recipe configs/recipes/llama3.1-70b-lora.yaml");
  const auto run = [a](const Process& process) {
    if (a->calibrate) return calibrate_machine(process, a->out, a->json);
    const bool ranks = process.mpi.size > 1 || !a->recipe.empty();
    return ranks ? diagnose_ranks(process, a->recipe, a->json) : diagnose_machine(process, a->json);
  };
  return {.options = options, .run = run, .by_many = true};
}

}  // namespace drover
