#include "kernels/comm/rank_sum.h"

#include <algorithm>
#include <cstring>

namespace drover {

namespace {

constexpr int64_t kBlock = 64;  // a fixed inner count, so that the compiler makes vectors of it

template <typename T, typename Sum>
void sum_block(std::span<const void* const> parts, int64_t begin, int64_t count, T* out) {
  Sum sum[kBlock];
  const auto* first = static_cast<const T*>(parts[0]) + begin;
  for (int64_t i = 0; i < count; ++i) sum[i] = static_cast<Sum>(first[i]);
  for (const void* part : parts.subspan(1)) {
    const auto* x = static_cast<const T*>(part) + begin;
    for (int64_t i = 0; i < count; ++i) sum[i] += static_cast<Sum>(x[i]);
  }
  for (int64_t i = 0; i < count; ++i) out[begin + i] = T(sum[i]);
}

template <typename T, typename Sum>
void sum_all(std::span<const void* const> parts, int64_t count, T* out) {
  int64_t begin = 0;
  for (; begin + kBlock <= count; begin += kBlock) sum_block<T, Sum>(parts, begin, kBlock, out);
  if (begin < count) sum_block<T, Sum>(parts, begin, count - begin, out);
}

template <typename Run>
void by_rows(Tensor x, int64_t begin, int64_t count, Run&& run) {
  const int64_t element = size_of(x.dtype);
  for (int64_t done = 0; done < count;) {
    const int64_t row = (begin + done) / x.cols, column = (begin + done) % x.cols;
    const int64_t length = x.contiguous() ? count : std::min(x.cols - column, count - done);
    run(static_cast<char*>(x.data) + (row * x.pitch + column) * element, done * element,
        static_cast<size_t>(length * element));
    done += length;
  }
}

}  // namespace

void sum_in_rank_order(std::span<const void* const> parts, int64_t count, DType dtype, void* out) {
  switch (dtype) {
    case DType::f32: return sum_all<float, float>(parts, count, static_cast<float*>(out));
    case DType::bf16: return sum_all<bf16, float>(parts, count, static_cast<bf16*>(out));
    case DType::f64: return sum_all<double, double>(parts, count, static_cast<double*>(out));
    default: break;
  }
  require(false, "an all-reduce is of bf16, f32 or f64");
}

void pack(Tensor x, int64_t begin, int64_t count, void* out) {
  by_rows(x, begin, count, [&](const char* run, int64_t offset, size_t bytes) {
    std::memcpy(static_cast<char*>(out) + offset, run, bytes);
  });
}

void unpack(const void* from, Tensor x, int64_t begin, int64_t count) {
  by_rows(x, begin, count, [&](char* run, int64_t offset, size_t bytes) {
    std::memcpy(run, static_cast<const char*>(from) + offset, bytes);
  });
}

}  // namespace drover
