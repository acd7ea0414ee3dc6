#include "launch/planned_machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "launch/version.h"

namespace drover {

namespace {

// Of a CPU of which nothing is known but its cores: what a slow one with AVX2 does.
RoughRates rough_cpu(int threads, int ranks) {
  const double n = threads;
  return {.name = "rough rates of a slow CPU",
          .product = 30e9 * n,
          .product_fp8 = 0,
          .peak = 30e9 * n,
          .attention = 20e9 * n,
          .attention_backward = 20e9 * n,
          .memory = 4e9 * n,
          .call_seconds = 5e-6,
          .upload = 0,
          .read = 0.5e9,
          .link = 2e9,
          .link_seconds = 20e-6,
          .network = 0.1e9,
          .network_seconds = 100e-6,
          .ranks_a_node = ranks};
}

constexpr double kLaunchSeconds = 4e-6;  // of a GPU's smallest op
constexpr double kReadRate = 2e9;        // bytes/s of a node's disk, nobody having measured it
constexpr const char* kUsualGpu = "h100";

PlannedMachine not_calibrated(const RoughRates& rough, const std::string& what_to_do) {
  return {.rates = Rates(rough),
          .name = fmt::format("{}, not calibrated{}", rough.name, what_to_do),
          .peak = rough.peak,
          .read = rough.read};
}

}  // namespace

RoughRates rough_rates(const Machine& m) {
  return {.name = fmt::format("rates of {} in the hardware table", m.full_name),
          .product = m.bf16_linear_flops_per_second,
          .product_fp8 = m.fp8_linear_flops_per_second,
          .peak = m.bf16_peak_flops_per_second,
          .attention = m.attention_forward_flops_per_second,
          .attention_backward = m.attention_backward_flops_per_second,
          .memory = m.memory_bytes_per_second,
          .call_seconds = kLaunchSeconds,
          .upload = m.host_link_bytes_per_second,
          .read = kReadRate,
          .link = m.node_link_bytes_per_second,
          .link_seconds = m.node_link_seconds,
          .network = m.network_bytes_per_second,
          .network_seconds = m.network_seconds,
          .ranks_a_node = static_cast<int>(m.gpus_a_node)};
}

PlannedMachine machine_of_table(const Machine& machine) {
  PlannedMachine planned =
      not_calibrated(rough_rates(machine), machine.supported ? "" : "; planned only: Drover does not run on such GPUs");
  planned.why_no_write = "the hardware table has no rate for writing";
  return planned;
}

namespace {

// The table's GPU whose name a device has, such as h100 in "NVIDIA H100 80GB HBM3"; null: none.
const Machine* in_table(std::string device) {
  std::ranges::transform(device, device.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const Machine& m : shipped_hardware().machines) {
    if (device.find(" " + m.name) != std::string::npos) return &m;
  }
  return nullptr;
}

RoughRates rough_of(DeviceKind device, int ranks, int threads) {
  if (device == DeviceKind::cpu) return rough_cpu(threads, ranks);
  const Machine* here = cuda_status().usable ? in_table(cuda_identity(0).name) : nullptr;
  return rough_rates(here != nullptr ? *here : machine(shipped_hardware(), kUsualGpu));
}

std::string ranks_and_threads(const MeasuredMachine& m) {
  return fmt::format("{} rank{} × {} thread{}", m.ranks, m.ranks == 1 ? "" : "s", m.threads, m.threads == 1 ? "" : "s");
}

PlannedMachine calibrated(const Calibration& c, const RoughRates& rough, DeviceKind device, const std::string& notes) {
  Rates rates(rough, c.ops, c.messages);
  const Machine* gpu = in_table(c.machine.device);
  const double best = rates.best_product();
  return {.rates = std::move(rates),
          .calibrated = true,
          .name = fmt::format("the rates of {} with {}, measured on {}{}", c.machine.device,
                              ranks_and_threads(c.machine), c.date, notes),
          .outside_per_call = c.outside_per_call,
          .peak = device == DeviceKind::cpu ? best
                  : gpu != nullptr          ? gpu->bf16_peak_flops_per_second
                                            : 0,
          .read = c.read,
          .write = c.write};
}

}  // namespace

PlannedMachine uncalibrated_machine(DeviceKind device, int ranks, int cores) {
  return not_calibrated(rough_of(device, ranks, std::max(1, cores / std::max(1, ranks))), "");
}

PlannedMachine planned_machine(DeviceKind device, int ranks, int cores, const std::string& file) {
  const bool gpu_here = device == DeviceKind::cuda && cuda_status().usable;
  const RoughRates rough = rough_of(device, ranks, std::max(1, cores / std::max(1, ranks)));
  if (device == DeviceKind::cuda) ranks = std::min(ranks, rough.ranks_a_node);  // that a machine has
  const int threads = std::max(1, cores / std::max(1, ranks));
  if (!file.empty()) {
    const Calibration c = read_calibration(fs::path(file));
    const bool here = device == DeviceKind::cpu || gpu_here;
    const bool other = !here || c.machine.device != this_machine(device, ranks, threads).device;
    return calibrated(c, rough, device, fmt::format("{} ({})", other ? ", which is another machine" : "", file));
  }
  if (device == DeviceKind::cuda && !gpu_here) return not_calibrated(rough, "; no GPU is here");
  const MeasuredMachine here = this_machine(device, ranks, threads);
  const std::string place = calibration_file(here).string();
  const std::optional<Calibration> c = find_calibration(here);
  if (!c) {
    return not_calibrated(rough,
                          fmt::format(" ({}drover doctor --calibrate measures {} into {})",
                                      ranks > 1 ? fmt::format("launch/run -n {} ", ranks) : "", here.device, place));
  }
  const bool old = c->version != program_version();
  return calibrated(*c, rough, device, fmt::format("{} ({})", old ? " by another version of drover" : "", place));
}

}  // namespace drover
