// Products in fp8 (kernels/fp8_products.h) as plain loops: codes by a search among all numbers that e4m3 has, sums over
// any number type. With Bounded, only the order of sums in fp32 and the scaling may make a difference: the codes are
// exact.
#pragma once
#include "kernels/base/e4m3.h"
#include "tests/reference/reference.h"

namespace drover::reference {

// Elements [begin, begin + count) of a row have one scale.
struct ScaledRun {
  int64_t begin, count;
};

// A matrix of codes' values, and the scale of each.
struct Coded {
  Doubles codes, scales;
};

inline const std::vector<double>& e4m3_numbers() {
  static const std::vector<double> numbers = [] {
    std::vector<double> all;
    for (int code = 0; code < 0x7f; ++code)
      all.push_back(static_cast<double>(float_of_e4m3(static_cast<uint8_t>(code))));
    return all;
  }();
  return numbers;
}

// The nearest; of two, the one with the even code.
inline double nearest_e4m3(double value) {
  if (std::isnan(value)) return value;
  const std::vector<double>& numbers = e4m3_numbers();
  const double size = std::min(std::abs(value), numbers.back());
  const auto above = std::lower_bound(numbers.begin(), numbers.end(), size);
  size_t code = static_cast<size_t>(above - numbers.begin());
  if (code > 0) {
    const double up = numbers[code] - size, down = size - numbers[code - 1];
    if (down < up || (down == up && code % 2 == 1)) --code;
  }
  return std::copysign(numbers[code], value);
}

// Scales and quotients are fp32 numbers: they decide which code it is.
inline Coded quantised(const Doubles& x, const std::vector<ScaledRun>& runs, double bound = 0) {
  Coded to{x, x};
  for (int64_t t = 0; t < x.rows; ++t) {
    for (const auto& [begin, count] : runs) {
      double largest = 0;
      for (int64_t i = begin; i < begin + count; ++i) {
        if (std::isnan(x(t, i)) || std::abs(x(t, i)) > largest) largest = std::abs(x(t, i));
        if (std::isnan(largest)) break;
      }
      if (bound > 0 && std::isfinite(largest)) largest = std::min(largest, bound);
      float scale = static_cast<float>(largest) / 448.0f;
      if (scale < std::numeric_limits<float>::min()) scale = 1;
      for (int64_t i = begin; i < begin + count; ++i) {
        to.codes(t, i) = nearest_e4m3(static_cast<double>(static_cast<float>(x(t, i)) / scale));
        to.scales(t, i) = static_cast<double>(scale);
      }
    }
  }
  return to;
}

// Σ over runs of the summed index: the operands' scales, of the run's first element, times the sum of products of
// codes. w (n, k), as Coded has it.
template <typename Real>
Matrix<Real> fp8_product(const Coded& x, const Coded& w, const std::vector<ScaledRun>& runs, const Matrix<Real>& y) {
  Matrix<Real> out = y;
  for (int64_t t = 0; t < x.codes.rows; ++t) {
    for (int64_t o = 0; o < w.codes.rows; ++o) {
      for (const auto& [begin, count] : runs) {
        Real sum(0);
        for (int64_t i = begin; i < begin + count; ++i) sum += Real(x.codes(t, i)) * Real(w.codes(o, i));
        out(t, o) += Real(x.scales(t, begin)) * Real(w.scales(o, begin)) * sum;
      }
    }
  }
  return out;
}

inline Coded transposed(const Coded& w) {
  Coded to{Doubles(w.codes.cols, w.codes.rows), Doubles(w.codes.cols, w.codes.rows)};
  for (int64_t i = 0; i < to.codes.rows; ++i) {
    for (int64_t j = 0; j < to.codes.cols; ++j) {
      to.codes(i, j) = w.codes(j, i);
      to.scales(i, j) = w.scales(j, i);
    }
  }
  return to;
}

}  // namespace drover::reference
