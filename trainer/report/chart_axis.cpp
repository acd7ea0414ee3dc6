#include "trainer/report/chart_axis.h"

#include <algorithm>
#include <cmath>

namespace drover {

void Extent::add(double value) {
  if (!std::isfinite(value)) return;
  least = empty ? value : std::min(least, value);
  most = empty ? value : std::max(most, value);
  empty = false;
}

ChartAxis::ChartAxis(Extent extent, double begin, double end, bool logarithmic)
    : least_(extent.least), most_(extent.most), begin_(begin), end_(end), logarithmic_(logarithmic && least_ > 0) {
  if (extent.empty) least_ = 0, most_ = 1;
  if (most_ > least_) return;
  const double room = logarithmic_ ? 0 : std::max(std::abs(least_) * 0.1, 1e-12);
  if (logarithmic_) {
    most_ = least_ * 2, least_ /= 2;
  } else {
    least_ -= room, most_ += room;
  }
}

double ChartAxis::place(double value) const {
  const double share =
      logarithmic_ ? std::log(value / least_) / std::log(most_ / least_) : (value - least_) / (most_ - least_);
  return begin_ + std::clamp(share, 0.0, 1.0) * (end_ - begin_);
}

std::vector<double> ChartAxis::ticks(int about) const {
  std::vector<double> values;
  if (logarithmic_) {
    const int first = static_cast<int>(std::floor(std::log10(least_))),
              last = static_cast<int>(std::ceil(std::log10(most_)));
    const std::vector<double> parts = last - first > about ? std::vector{1.0} : std::vector{1.0, 2.0, 5.0};
    for (int power = first; power <= last; ++power) {
      for (const double part : parts) values.push_back(part * std::pow(10, power));
    }
  } else {
    const double rough = (most_ - least_) / about, power = std::pow(10, std::floor(std::log10(rough)));
    double step = power;
    for (const double part : {2.0, 5.0, 10.0}) {
      if (step < rough) step = part * power;
    }
    const double first = std::ceil(least_ / step);
    for (int i = 0; i <= 2 * about; ++i) values.push_back(first + i == 0 ? 0 : (first + i) * step);
  }
  std::erase_if(values, [&](double v) { return v < least_ - 1e-9 * (most_ - least_); });
  std::erase_if(values, [&](double v) { return v > most_ + 1e-9 * (most_ - least_); });
  return values;
}

}  // namespace drover
