// A view of a matrix in somebody else's memory. Trivially copyable; owns nothing, resizes nothing.
// Every tensor of the program is a matrix of rows; a vector is one column of rows (pitch 1).
#pragma once
#include <cstdint>
#include <type_traits>

#include "kernels/base/bf16.h"
#include "kernels/base/require.h"

namespace drover {

enum class DType : uint8_t { f32, bf16, i32, f64, u8 };  // u8: bytes whose meaning their owner knows
enum class Where : uint8_t { host, device, nowhere };    // nowhere: the Count backend's addresses, never read

constexpr int64_t size_of(DType type) {
  return type == DType::u8 ? 1 : type == DType::bf16 ? 2 : type == DType::f64 ? 8 : 4;
}
constexpr const char* name_of(DType type) {
  constexpr const char* kNames[] = {"f32", "bf16", "i32", "f64", "u8"};
  return kNames[static_cast<size_t>(type)];
}

template <typename T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (std::is_same_v<T, bf16>) return DType::bf16;
  if constexpr (std::is_same_v<T, int32_t>) return DType::i32;
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  if constexpr (std::is_same_v<T, uint8_t>) return DType::u8;
}

struct Tensor {
  void* data = nullptr;
  int64_t rows = 0, cols = 0;
  int64_t pitch = 0;  // elements from one row to the next
  DType dtype = DType::f32;
  Where where = Where::host;

  bool empty() const { return data == nullptr; }
  int64_t size() const { return rows * cols; }
  int64_t bytes() const { return size() * size_of(dtype); }
  bool contiguous() const { return pitch == cols || rows == 1; }

  template <typename T>
  T* as() const {
    require(dtype == dtype_of<T>(), "tensor read with another dtype than it has");
    return static_cast<T*>(data);
  }
  Tensor rows_from(int64_t begin, int64_t count) const {
    Tensor t = *this;
    t.data = static_cast<char*>(data) + begin * pitch * size_of(dtype);
    t.rows = count;
    return t;
  }
  Tensor columns(int64_t begin, int64_t count) const {
    Tensor t = *this;
    t.data = static_cast<char*>(data) + begin * size_of(dtype);
    t.cols = count;
    return t;
  }
};

inline Tensor matrix(void* data, int64_t rows, int64_t cols, DType dtype, Where where = Where::host) {
  return {data, rows, cols, cols, dtype, where};
}
template <typename T>
Tensor matrix(T* data, int64_t rows, int64_t cols) {
  return {const_cast<std::remove_const_t<T>*>(data), rows, cols, cols, dtype_of<std::remove_const_t<T>>(), Where::host};
}

}  // namespace drover
