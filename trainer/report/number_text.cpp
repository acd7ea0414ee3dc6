#include "trainer/report/number_text.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>

namespace drover {

namespace {

constexpr const char* kNothing = "–";

}  // namespace

std::string plain(double value) {
  if (!std::isfinite(value)) return kNothing;
  const double size = std::abs(value);
  if (size != 0 && (size < 1e-3 || size >= 1e6)) return fmt::format("{:.3g}", value);
  return size >= 1000 ? fmt::format("{:.0f}", value) : fmt::format("{:.4g}", value);
}

std::string grouped(double value) {
  if (!std::isfinite(value)) return kNothing;
  std::string digits = fmt::format("{:.0f}", value);
  for (size_t at = digits.size(); at > 3 && digits[at - 4] != '-';) digits.insert(at -= 3, "\u202F");
  return digits;
}

std::string bytes_text(double bytes) {
  if (!std::isfinite(bytes)) return kNothing;
  constexpr double kKib = 1024;
  if (bytes < kKib * kKib) return fmt::format("{:.1f} KiB", bytes / kKib);
  if (bytes < kKib * kKib * kKib) return fmt::format("{:.1f} MiB", bytes / (kKib * kKib));
  return fmt::format("{:.2f} GiB", bytes / (kKib * kKib * kKib));
}

std::string seconds_text(double seconds) {
  if (!std::isfinite(seconds)) return kNothing;
  if (seconds < 60) return fmt::format("{:.3g} s", seconds);
  const auto whole = static_cast<int64_t>(std::lround(seconds));
  if (whole < 3600) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
  return fmt::format("{}:{:02} h", whole / 3600, whole % 3600 / 60);
}

std::string percent_text(double share) {
  return std::isfinite(share) ? fmt::format("{:.3g} %", 100 * share) : kNothing;
}

std::string ratio_text(double a, double b) { return std::isfinite(a / b) ? fmt::format("{:.3g} ×", a / b) : kNothing; }

}  // namespace drover
