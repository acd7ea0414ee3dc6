// How close is close enough: ‖got - truth‖₂ <= u_out·‖truth‖₂ + 3·u·‖errors‖₂, where u_out is the output dtype's
// rounding, u = 2⁻²⁴ and `errors` the estimate that the reference carries. Three times a root of summed squares is
// three standard deviations or more.
#pragma once
#include <gtest/gtest.h>

#include <cmath>

#include "tests/reference/reference.h"

namespace drover::reference {

inline double unit_roundoff(DType type) {
  return type == DType::bf16 ? 0x1p-8 : type == DType::f32 ? 0x1p-24 : 0x1p-53;
}

// `errors` holds what an fp32 evaluation may be off by, in units of u; what it has rounded last is counted in it for
// f32 outputs.
inline testing::AssertionResult close(const Doubles& got, const Doubles& truth, const Doubles& errors, DType out) {
  if (got.rows != truth.rows || got.cols != truth.cols) return testing::AssertionFailure() << "shapes differ";
  double difference = 0, size = 0, allowed = 0, worst = 0;
  int64_t worst_at = 0;
  for (size_t i = 0; i < got.values.size(); ++i) {
    if (got.values[i] == truth.values[i]) {  // covers infinities
      if (std::isfinite(truth.values[i])) size += truth.values[i] * truth.values[i];
      continue;
    }
    const double d = got.values[i] - truth.values[i];
    if (!std::isfinite(d)) {
      return testing::AssertionFailure() << "element " << i << " is " << got.values[i] << " and should be "
                                         << truth.values[i];
    }
    difference += d * d;
    size += truth.values[i] * truth.values[i];
    allowed += errors.values[i] * errors.values[i];
    if (std::abs(d) > worst) {
      worst = std::abs(d);
      worst_at = static_cast<int64_t>(i);
    }
  }
  const double bound = unit_roundoff(out) * std::sqrt(size) + 3 * 0x1p-24 * std::sqrt(allowed);
  if (std::sqrt(difference) <= bound) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "error " << std::sqrt(difference) << " exceeds " << bound << " (‖truth‖ "
                                     << std::sqrt(size) << "); worst at (" << worst_at / truth.cols << ","
                                     << worst_at % truth.cols << "): " << got.values[static_cast<size_t>(worst_at)]
                                     << " for " << truth.values[static_cast<size_t>(worst_at)];
}

// The same, with truth and errors from one evaluation on Bounded numbers.
inline testing::AssertionResult close(const Doubles& got, const Matrix<Bounded>& expected, DType out) {
  Doubles truth(expected.rows, expected.cols), errors(expected.rows, expected.cols);
  for (size_t i = 0; i < expected.values.size(); ++i) {
    truth.values[i] = expected.values[i].value;
    errors.values[i] = std::isfinite(expected.values[i].error) ? expected.values[i].error : 0;
  }
  return close(got, truth, errors, out);
}

// An op's result is close, and it wrote nothing outside its tensor.
inline testing::AssertionResult as_expected(const Held& held, const Matrix<Bounded>& expected) {
  if (!held.guard_intact()) return testing::AssertionFailure() << "the op wrote outside its tensor";
  return close(held.values(), expected, held->dtype);
}
inline testing::AssertionResult exactly(const Held& held, const Doubles& expected) {
  if (!held.guard_intact()) return testing::AssertionFailure() << "the op wrote outside its tensor";
  const Doubles got = held.values();
  for (size_t i = 0; i < got.values.size(); ++i) {
    if (got.values[i] != expected.values[i]) {
      return testing::AssertionFailure() << "element " << i << " is " << got.values[i] << " and should be "
                                         << expected.values[i];
    }
  }
  return testing::AssertionSuccess();
}

// d(Σ dy∘f(x))/dx by central differences against `gradient`, relative to ‖gradient‖.
template <typename F>
double gradient_error(F&& f, const Doubles& x, const Doubles& dy, const Doubles& gradient) {
  const auto value = [&](const Doubles& at) {
    const Doubles y = f(at);
    double sum = 0;
    for (size_t i = 0; i < y.values.size(); ++i) sum += y.values[i] * dy.values[i];
    return sum;
  };
  constexpr double step = 0x1p-17;  // about the cube root of double's roundoff: truncation and rounding balance
  double difference = 0, size = 0;
  Doubles moved = x;
  for (size_t i = 0; i < x.values.size(); ++i) {
    moved.values[i] = x.values[i] + step;
    const double up = value(moved);
    moved.values[i] = x.values[i] - step;
    const double slope = (up - value(moved)) / (2 * step);
    moved.values[i] = x.values[i];
    difference += (slope - gradient.values[i]) * (slope - gradient.values[i]);
    size += gradient.values[i] * gradient.values[i];
  }
  return std::sqrt(difference / size);
}

}  // namespace drover::reference
