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

}  // namespace

PlannedMachine planned_machine(DeviceKind device, int ranks, int cores, const std::string& file) {
  const int threads = std::max(1, cores / std::max(1, ranks));
  const MeasuredMachine machine = this_machine(device, ranks, threads);
  RoughRates rough = rough_cpu(threads, ranks);
  std::optional<Calibration> c =
      file.empty() ? find_calibration(machine) : std::optional(read_calibration(fs::path(file)));
  const std::string place = file.empty() ? calibration_file(machine).string() : file;
  if (!c) {
    return {.rates = Rates(rough),
            .name = fmt::format("{}, not calibrated ({}drover doctor --calibrate measures {} into {})", rough.name,
                                ranks > 1 ? fmt::format("launch/run -n {} ", ranks) : "", machine.device, place),
            .peak = rough.product,
            .read = rough.read};
  }
  Rates rates(std::move(rough), c->ops, c->messages);
  const double best = rates.best_product();
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
