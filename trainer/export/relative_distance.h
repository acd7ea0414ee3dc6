// How far two vectors are apart: ‖a − b‖ / ‖b‖, summed in fp64, of pieces one after the other.
#pragma once
#include <algorithm>
#include <cmath>
#include <span>

#include "kernels/base/require.h"

namespace drover {

class RelativeDistance {
 public:
  RelativeDistance() = default;
  RelativeDistance(std::span<const float> a, std::span<const float> b) { add(a, b); }

  void add(std::span<const float> a, std::span<const float> b) {  // of equal length
    require(a.size() == b.size(), "vectors that are compared have one length");
    for (size_t i = 0; i < a.size(); ++i) {
      const double d = static_cast<double>(a[i]) - b[i];
      difference_ += d * d;
      size_ += static_cast<double>(b[i]) * b[i];
    }
  }
  void add(const RelativeDistance& more) {
    difference_ += more.difference_;
    size_ += more.size_;
  }
  double difference2() const { return difference_; }  // ‖a − b‖²
  double size2() const { return size_; }              // ‖b‖²
  double value() const { return std::sqrt(difference_ / std::max(size_, 1e-30)); }

 private:
  double difference_ = 0, size_ = 0;
};

}  // namespace drover
