// A plain matrix for the reference ops, and its passage to and from a backend's tensors: pitched, guarded, in any float
// dtype.
#pragma once
#include <cstring>
#include <span>
#include <vector>

#include "kernels/base/philox.h"
#include "kernels/tensor.h"
#include "tests/reference/backend_under_test.h"

namespace drover::reference {

template <typename Real>
struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<Real> values;
  Matrix() = default;
  Matrix(int64_t r, int64_t c) : rows(r), cols(c), values(static_cast<size_t>(r * c), Real(0)) {}
  Real& operator()(int64_t i, int64_t j) { return values[static_cast<size_t>(i * cols + j)]; }
  const Real& operator()(int64_t i, int64_t j) const { return values[static_cast<size_t>(i * cols + j)]; }
};
using Doubles = Matrix<double>;

template <typename To, typename From>
Matrix<To> as(const Matrix<From>& from) {
  Matrix<To> to(from.rows, from.cols);
  for (size_t i = 0; i < to.values.size(); ++i) to.values[i] = To(from.values[i]);
  return to;
}

inline double rounded(double value, DType type) {
  if (type == DType::bf16) return static_cast<double>(static_cast<float>(bf16(static_cast<float>(value))));
  return type == DType::f32 ? static_cast<double>(static_cast<float>(value)) : value;
}

// Values drawn evenly from [-scale, scale), rounded to `type` so that the reference and the backend see the same
// numbers.
inline Doubles drawn_matrix(uint64_t seed, int64_t rows, int64_t cols, DType type, double scale = 1) {
  Doubles m(rows, cols);
  const PhiloxKey key = PhiloxKey::of(seed);
  for (size_t i = 0; i < m.values.size(); ++i)
    m.values[i] = rounded((2.0 * static_cast<double>(philox_uniform(key, i)) - 1) * scale, type);
  return m;
}

inline double element(const Tensor& t, int64_t i, int64_t j) {
  const int64_t at = i * t.pitch + j;
  switch (t.dtype) {
    case DType::f32: return static_cast<double>(t.as<float>()[at]);
    case DType::bf16: return static_cast<double>(static_cast<float>(t.as<bf16>()[at]));
    case DType::i32: return t.as<int32_t>()[at];
    default: return t.as<double>()[at];
  }
}
inline void set_element(const Tensor& t, int64_t i, int64_t j, double value) {
  const int64_t at = i * t.pitch + j;
  switch (t.dtype) {
    case DType::f32: t.as<float>()[at] = static_cast<float>(value); break;
    case DType::bf16: t.as<bf16>()[at] = bf16(static_cast<float>(value)); break;
    case DType::i32: t.as<int32_t>()[at] = static_cast<int32_t>(value); break;
    default: t.as<double>()[at] = value;
  }
}
inline double get(const Tensor& t, int64_t i, int64_t j) {
  finish();
  return element(t, i, j);
}
inline void set(const Tensor& t, int64_t i, int64_t j, double value) {
  finish();
  set_element(t, i, j, value);
}
inline Doubles values_of(const Tensor& t) {
  finish();
  Doubles m(t.rows, t.cols);
  for (int64_t i = 0; i < m.rows; ++i) {
    for (int64_t j = 0; j < m.cols; ++j) m(i, j) = element(t, i, j);
  }
  return m;
}

// Memory behind a tensor whose rows lie `gap` elements apart. What is not the tensor's is filled with a pattern, to see
// that nobody writes there. Where pitch or length is a multiple of 8 the tensor begins on a 16-byte boundary, as
// tensors of a model do and as packed access needs; every other one begins one element late, so that no op relies on
// alignment.
class Held {
 public:
  Held(const Doubles& values, DType type, int64_t gap = 0) {
    const int64_t pitch = values.cols + gap, size = size_of(type), length = values.rows * pitch;
    const bool aligned = (gap == 0 ? length : pitch) % 8 == 0;
    before_ = aligned ? kAlignment : size;
    bytes_ = before_ + (length + 1) * size;
    memory_ = static_cast<unsigned char*>(allocate_shared(static_cast<size_t>(bytes_)));
    std::memset(memory_, kGuard, static_cast<size_t>(bytes_));
    tensor_ = {memory_ + before_, values.rows, values.cols, pitch, type, Where::host};
    for (int64_t i = 0; i < values.rows; ++i) {
      for (int64_t j = 0; j < values.cols; ++j) set_element(tensor_, i, j, values(i, j));
    }
  }
  Held(int64_t rows, int64_t cols, DType type, int64_t gap = 0) : Held(Doubles(rows, cols), type, gap) {}
  ~Held() { release_shared(memory_); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

  operator Tensor() const { return tensor_; }
  const Tensor* operator->() const { return &tensor_; }
  Doubles values() const { return values_of(tensor_); }
  bool guard_intact() const {
    finish();
    const int64_t size = size_of(tensor_.dtype), row = tensor_.cols * size, pitch = tensor_.pitch * size;
    const auto untouched = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        if (memory_[i] != kGuard) return false;
      }
      return true;
    };
    if (!untouched(0, before_)) return false;
    for (int64_t i = 0; i < tensor_.rows; ++i) {
      if (!untouched(before_ + i * pitch + row, before_ + (i + 1) * pitch)) return false;
    }
    return untouched(before_ + tensor_.rows * pitch, bytes_);
  }

 private:
  static constexpr unsigned char kGuard = 0xa5;
  static constexpr int64_t kAlignment = 16;  // which malloc and cudaMallocManaged keep
  unsigned char* memory_ = nullptr;
  int64_t before_ = 0, bytes_ = 0;
  Tensor tensor_;
};

}  // namespace drover::reference
