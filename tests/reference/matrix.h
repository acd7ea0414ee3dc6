// A plain matrix for the reference ops, and its passage to and from a backend's tensors: pitched, guarded, in any float dtype.
#pragma once
#include <cstring>
#include <span>
#include <vector>

#include "kernels/base/philox.h"
#include "kernels/tensor.h"

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

// Values drawn evenly from [-scale, scale), rounded to `type` so that the reference and the backend see the same numbers.
inline Doubles drawn_matrix(uint64_t seed, int64_t rows, int64_t cols, DType type, double scale = 1) {
  Doubles m(rows, cols);
  const PhiloxKey key = PhiloxKey::of(seed);
  for (size_t i = 0; i < m.values.size(); ++i) m.values[i] = rounded((2.0 * static_cast<double>(philox_uniform(key, i)) - 1) * scale, type);
  return m;
}

inline double get(const Tensor& t, int64_t i, int64_t j) {
  const int64_t at = i * t.pitch + j;
  switch (t.dtype) {
    case DType::f32: return static_cast<double>(t.as<float>()[at]);
    case DType::bf16: return static_cast<double>(static_cast<float>(t.as<bf16>()[at]));
    case DType::i32: return t.as<int32_t>()[at];
    default: return t.as<double>()[at];
  }
}

inline void set(const Tensor& t, int64_t i, int64_t j, double value) {
  const int64_t at = i * t.pitch + j;
  switch (t.dtype) {
    case DType::f32: t.as<float>()[at] = static_cast<float>(value); break;
    case DType::bf16: t.as<bf16>()[at] = bf16(static_cast<float>(value)); break;
    case DType::i32: t.as<int32_t>()[at] = static_cast<int32_t>(value); break;
    default: t.as<double>()[at] = value;
  }
}

inline Doubles values_of(const Tensor& t) {
  Doubles m(t.rows, t.cols);
  for (int64_t i = 0; i < m.rows; ++i) {
    for (int64_t j = 0; j < m.cols; ++j) m(i, j) = get(t, i, j);
  }
  return m;
}

// Memory behind a tensor whose rows lie `gap` elements apart. What is not the tensor's is filled with a pattern, to see that nobody writes there;
// the tensor begins one element late, so that no op relies on alignment.
class Held {
 public:
  Held(const Doubles& values, DType type, int64_t gap = 0) {
    const int64_t pitch = values.cols + gap;
    bytes_.assign(static_cast<size_t>((values.rows * pitch + 2) * size_of(type)), kGuard);
    tensor_ = {bytes_.data() + size_of(type), values.rows, values.cols, pitch, type, Where::host};
    for (int64_t i = 0; i < values.rows; ++i) {
      for (int64_t j = 0; j < values.cols; ++j) set(tensor_, i, j, values(i, j));
    }
  }
  Held(int64_t rows, int64_t cols, DType type, int64_t gap = 0) : Held(Doubles(rows, cols), type, gap) {}
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

  operator Tensor() const { return tensor_; }
  const Tensor* operator->() const { return &tensor_; }
  Doubles values() const { return values_of(tensor_); }
  bool guard_intact() const {
    const int64_t size = size_of(tensor_.dtype), row = tensor_.cols * size, pitch = tensor_.pitch * size;
    const auto untouched = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        if (bytes_[static_cast<size_t>(i)] != kGuard) return false;
      }
      return true;
    };
    if (!untouched(0, size)) return false;
    for (int64_t i = 0; i < tensor_.rows; ++i) {
      if (!untouched(size + i * pitch + row, size + (i + 1) * pitch)) return false;
    }
    return untouched(size + tensor_.rows * pitch, static_cast<int64_t>(bytes_.size()));
  }

 private:
  static constexpr unsigned char kGuard = 0xa5;
  std::vector<unsigned char> bytes_;
  Tensor tensor_;
};

}  // namespace drover::reference
