#include "trainer/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "kernels/base/error.h"

namespace drover {

std::string print_profile(const std::map<std::string, OpTime>& times, double seconds) {
  std::vector<std::pair<std::string, OpTime>> ops(times.begin(), times.end());
  std::sort(ops.begin(), ops.end(), [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  const auto line = [&](const std::string& name, const OpTime& t) {
    const std::string rate = t.flops > 0 && t.seconds > 0 ? fmt::format("{:.1f}", static_cast<double>(t.flops) / t.seconds * 1e-9) : "";
    return fmt::format("{:<24} {:>9} {:>10.2f} {:>7.1f} % {:>10}\n", name, t.calls, t.seconds, seconds > 0 ? 100 * t.seconds / seconds : 0, rate);
  };
  std::string text = fmt::format("{:<24} {:>9} {:>10} {:>9} {:>10}\n", "op", "calls", "seconds", "share", "GFLOP/s");
  OpTime products, rest{.seconds = seconds};
  for (const auto& [name, t] : ops) {
    text += line(name, t);
    rest.seconds -= t.seconds;
    if (t.flops == 0) continue;
    products.calls += t.calls;
    products.seconds += t.seconds;
    products.flops += t.flops;
  }
  text += line("matrix products", products);
  text += line("outside the ops", rest);
  return text;
}

}  // namespace drover
