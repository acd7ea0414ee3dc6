#include "trainer/run/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "kernels/base/error.h"

namespace drover {

std::string print_profile(const std::map<std::string_view, OpTime>& times, double seconds) {
  std::vector<std::pair<std::string_view, OpTime>> ops(times.begin(), times.end());
  std::sort(ops.begin(), ops.end(), [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  const auto rate = [](int64_t amount, double seconds) {
    return amount > 0 && seconds > 0 ? fmt::format("{:.1f}", static_cast<double>(amount) / seconds * 1e-9) : "";
  };
  const auto line = [&](std::string_view name, const OpTime& t) {
    return fmt::format("{:<24} {:>9} {:>10.2f} {:>7.1f} % {:>10} {:>10}\n", name, t.calls, t.seconds,
                       seconds > 0 ? 100 * t.seconds / seconds : 0, t.product ? rate(t.flops, t.seconds) : "",
                       rate(t.bytes, t.seconds));
  };
  std::string text =
      fmt::format("{:<24} {:>9} {:>10} {:>9} {:>10} {:>10}\n", "op", "calls", "seconds", "share", "GFLOP/s", "GB/s");
  OpTime products{.product = true}, rest{.seconds = seconds};
  for (const auto& [name, t] : ops) {
    text += line(name, t);
    rest.seconds -= t.seconds;
    if (!t.product) continue;
    products.bytes += t.bytes;
    products.calls += t.calls;
    products.seconds += t.seconds;
    products.flops += t.flops;
  }
  text += line("matrix products", products);
  text += line("outside the ops", rest);
  return text;
}

}  // namespace drover
