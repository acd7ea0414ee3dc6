// Tensors on a device for the tests of communicators, set and read as doubles, and the table of NCCL's functions that a
// test program uses.
#pragma once
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "kernels/nccl/nccl_api.h"

namespace drover::nccl {

const Api& api_under_test();  // the stand-in's over the emulation, the library's on a GPU

// A pitched tensor on the device with drawn values in its columns and a mark in its margin.
class OnDevice {
 public:
  OnDevice(Backend& backend, int64_t rows, int64_t cols, DType dtype, int64_t margin = 0)
      : backend_(backend),
        arena_("test", backend.memory(),
               Arena::bytes_of(rows, cols, dtype, cols + margin) + Arena::bytes_of(rows, cols, DType::f64)),
        tensor(arena_.tensor(rows, cols, dtype, cols + margin)) {
    if (margin > 0) {
      const std::vector<double> marks(static_cast<size_t>(rows * (cols + margin)), 77);
      wide_ = tensor.columns(0, tensor.pitch);
      set_all(wide_, marks);
    }
  }
  void set(const std::vector<double>& values) { set_all(tensor, values); }
  std::vector<double> get() { return get_all(tensor); }
  std::vector<double> margin() { return get_all(wide_.columns(tensor.cols, wide_.cols - tensor.cols)); }

 private:
  void set_all(Tensor x, const std::vector<double>& values) {
    std::vector<char> bytes;
    for (double v : values) append(bytes, x.dtype, v);
    backend_.upload(bytes.data(), x);
  }
  static void append(std::vector<char>& bytes, DType dtype, double v) {
    const auto put = [&](auto value) {
      bytes.insert(bytes.end(), reinterpret_cast<const char*>(&value),
                   reinterpret_cast<const char*>(&value) + sizeof value);
    };
    dtype == DType::bf16 ? put(bf16(static_cast<float>(v))) : dtype == DType::f32 ? put(static_cast<float>(v)) : put(v);
  }
  std::vector<double> get_all(Tensor x) {
    std::vector<char> bytes(static_cast<size_t>(x.bytes()));
    backend_.download(x, bytes.data());
    std::vector<double> values;
    for (int64_t i = 0; i < x.size(); ++i) {
      const char* at = bytes.data() + i * size_of(x.dtype);
      values.push_back(x.dtype == DType::bf16  ? static_cast<float>(*reinterpret_cast<const bf16*>(at))
                       : x.dtype == DType::f32 ? *reinterpret_cast<const float*>(at)
                                               : *reinterpret_cast<const double*>(at));
    }
    return values;
  }
  Backend& backend_;
  Arena arena_;
  Tensor wide_;

 public:
  Tensor tensor;
};

inline std::vector<double> drawn_values(int rank, int64_t n) {
  std::vector<double> v;
  for (int64_t i = 0; i < n; ++i)
    v.push_back((rank + 1) * 0.25 + static_cast<double>(i % 31) / 8);  // exact in every dtype, and so are the sums
  return v;
}
inline std::vector<double> sum_of(int ranks, int64_t n) {
  std::vector<double> sum(static_cast<size_t>(n));
  for (int r = 0; r < ranks; ++r) {
    const auto v = drawn_values(r, n);
    for (size_t i = 0; i < v.size(); ++i) sum[i] += v[i];
  }
  return sum;
}

}  // namespace drover::nccl
