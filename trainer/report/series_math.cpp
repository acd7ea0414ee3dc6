#include "trainer/report/series_math.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/require.h"
#include "trainer/report/metrics_series.h"

namespace drover {

namespace {

std::vector<double> present(std::span<const double> y) {
  std::vector<double> values;
  std::ranges::copy_if(y, std::back_inserter(values), [](double v) { return std::isfinite(v); });
  return values;
}

void take(Bin& bin, double x, double y) {
  bin.min = bin.count == 0 ? y : std::min(bin.min, y);
  bin.max = bin.count == 0 ? y : std::max(bin.max, y);
  bin.x += x, bin.mean += y, ++bin.count;
}

void close(Bin& bin, std::vector<Bin>& bins) {
  if (bin.count > 0) {
    bin.x /= static_cast<double>(bin.count);
    bin.mean = std::clamp(bin.mean / static_cast<double>(bin.count), bin.min, bin.max);
    bins.push_back(bin);
  }
  bin = {};
}

}  // namespace

std::vector<Bin> binned(std::span<const double> x, std::span<const double> y, size_t most) {
  require(x.size() == y.size() && most > 0, "a series has an x for every y, and a picture columns");
  if (x.size() <= most) return each_point(x, y);
  const double begin = x.front(), width = (x.back() - begin) / static_cast<double>(most);
  std::vector<Bin> bins;
  Bin bin;
  size_t column = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t own = std::min(most - 1, static_cast<size_t>(std::max(0.0, (x[i] - begin) / width)));
    if (own != column) close(bin, bins);
    column = own;
    if (std::isfinite(y[i])) take(bin, x[i], y[i]);
  }
  close(bin, bins);
  return bins;
}

std::vector<Bin> each_point(std::span<const double> x, std::span<const double> y) {
  std::vector<Bin> bins;
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::isfinite(y[i])) bins.push_back({x[i], y[i], y[i], y[i], 1});
  }
  return bins;
}

std::vector<double> smoothed(std::span<const double> y, double window) {
  const double newest = 2 / (std::max(1.0, window) + 1);
  std::vector<double> result;
  double mean = 0, weight = 0;
  for (const double value : y) {
    if (std::isfinite(value)) {
      mean += newest * (value - mean);
      weight += newest * (1 - weight);
    }
    result.push_back(std::isfinite(value) ? mean / weight : kHole);
  }
  return result;
}

double smoothing_window(size_t count) {
  const double steps = static_cast<double>(count);
  return std::clamp(std::max(steps / 20, std::min(steps / 4, 5.0)), 1.0, 200.0);
}

double median(std::span<const double> y) {
  std::vector<double> values = present(y);
  if (values.empty()) return kHole;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

double sum_of(std::span<const double> y) {
  double sum = 0;
  for (const double value : present(y)) sum += value;
  return sum;
}

double last_of(std::span<const double> y) {
  const std::vector<double> values = present(y);
  return values.empty() ? kHole : values.back();
}

double first_of(std::span<const double> y) {
  const std::vector<double> values = present(y);
  return values.empty() ? kHole : values.front();
}

double least_of(std::span<const double> y) {
  const std::vector<double> values = present(y);
  return values.empty() ? kHole : *std::ranges::min_element(values);
}

double most_of(std::span<const double> y) {
  const std::vector<double> values = present(y);
  return values.empty() ? kHole : *std::ranges::max_element(values);
}

int64_t counted(std::span<const double> y) { return static_cast<int64_t>(present(y).size()); }

}  // namespace drover
