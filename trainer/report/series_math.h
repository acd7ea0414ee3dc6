// What pictures and rules make of series of numbers. NaN is a hole everywhere: it counts as not there.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace drover {

// Neighbouring points of a series as one: a column of a picture.
struct Bin {
  double x = 0;  // mean of theirs
  double min = 0, mean = 0, max = 0;
  int64_t count = 0;
};

// At most `most` of them, over equal ranges of x, which ascends. Empty ranges make no bin.
std::vector<Bin> binned(std::span<const double> x, std::span<const double> y, size_t most);

// The points one by one, for marks that are few.
std::vector<Bin> each_point(std::span<const double> x, std::span<const double> y);

// Exponential mean with weight 2/(window+1) of the newest value, without a bias towards the first; a hole stays one.
std::vector<double> smoothed(std::span<const double> y, double window);
double smoothing_window(size_t count);  // a twentieth of the series, of few steps a quarter

double median(std::span<const double> y);    // NaN of nothing
double sum_of(std::span<const double> y);    // 0 of nothing
double last_of(std::span<const double> y);   // the last that is there, or NaN
double first_of(std::span<const double> y);  // likewise
double least_of(std::span<const double> y);
double most_of(std::span<const double> y);
int64_t counted(std::span<const double> y);  // how many are there

}  // namespace drover
