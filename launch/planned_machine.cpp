#include "launch/planned_machine.h"

#include <fmt/format.h>

#include <algorithm>

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

PlannedMachine machine_of_table(const Machine& machine) { return not_calibrated(rough_rates(machine), ""); }

PlannedMachine planned_machine(DeviceKind device, int ranks, int cores, const std::string& file) {
  const bool gpu_here = device == DeviceKind::cuda && cuda_status().usable;
  const int threads = std::max(1, cores / std::max(1, ranks));
  const RoughRates rough =
      device == DeviceKind::cuda ? rough_rates(machine(shipped_hardware(), kUsualGpu)) : rough_cpu(threads, ranks);
  if (device == DeviceKind::cuda && !gpu_here && file.empty()) return not_calibrated(rough, "; no GPU is here");
  std::optional<Calibration> c;
  std::string place = file;
  if (file.empty()) {
    const MeasuredMachine here = this_machine(device, ranks, threads);
    place = calibration_file(here).string();
    c = find_calibration(here);
    if (!c) {
      return not_calibrated(rough,
                            fmt::format(" ({}drover doctor --calibrate measures {} into {})",
                                        ranks > 1 ? fmt::format("launch/run -n {} ", ranks) : "", here.device, place));
    }
  } else {
    c = read_calibration(fs::path(file));
  }
  Rates rates(rough, c->ops, c->messages);
  const double best = device == DeviceKind::cuda ? rough.peak : rates.best_product();
  return {.rates = std::move(rates),
          .calibrated = true,
          .name = fmt::format("the rates of {} with {} rank{} × {} thread{}, measured on {} ({})", c->machine.device,
                              c->machine.ranks, c->machine.ranks == 1 ? "" : "s", c->machine.threads,
                              c->machine.threads == 1 ? "" : "s", c->date, place),
          .outside_per_call = c->outside_per_call,
          .peak = best,
          .read = c->read};
}

}  // namespace drover
