#include <algorithm>
#include <array>
#include <cmath>

#include "trainer/report/report_text.h"
#include "trainer/report/series_math.h"

namespace drover {

std::string sparkline(std::span<const double> y, size_t columns) {
  static constexpr std::array kBlocks = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const double least = least_of(y), most = most_of(y);
  if (!std::isfinite(least) || columns == 0) return "";
  const size_t width = std::min(columns, y.size());
  std::string line;
  for (size_t column = 0; column < width; ++column) {
    const size_t begin = column * y.size() / width, end = (column + 1) * y.size() / width;
    const std::vector<double> part(y.begin() + static_cast<std::ptrdiff_t>(begin),
                                   y.begin() + static_cast<std::ptrdiff_t>(end));
    const double mean = sum_of(part) / static_cast<double>(std::max<int64_t>(1, counted(part)));
    const double share = most > least ? (mean - least) / (most - least) : 0.5;
    const auto block = static_cast<size_t>(std::clamp(share * kBlocks.size(), 0.0, kBlocks.size() - 1.0));
    line += counted(part) == 0 ? " " : kBlocks[block];
  }
  return line;
}

}  // namespace drover
