// A small host table on the device: its buffer grows when something larger comes, and is written in the order of the
// stream.
#pragma once
#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <span>

#include "kernels/cuda/check.h"
#include "kernels/cuda/traffic.h"
#include "kernels/cuda/upload.h"

namespace drover::cuda {

class DeviceImage {
 public:
  DeviceImage() = default;
  ~DeviceImage() { cudaFree(device_); }
  DeviceImage(const DeviceImage&) = delete;
  DeviceImage& operator=(const DeviceImage&) = delete;

  char* put(std::span<const char> image, Uploader& uploader, Traffic& traffic) {
    const int64_t bytes = static_cast<int64_t>(image.size());
    if (bytes > capacity_) {
      cudaFree(device_);  // waits for work that uses it
      traffic.allocated_bytes -= capacity_;
      device_ = nullptr;
      capacity_ = 0;
      const int64_t capacity = std::max(kLeastBytes, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(bytes))));
      check(cudaMalloc(reinterpret_cast<void**>(&device_), static_cast<size_t>(capacity)), "cudaMalloc");
      capacity_ = capacity;
      ++traffic.allocations;
      traffic.allocated_bytes += capacity;
    }
    if (bytes > 0) {
      uploader.copy(image.data(), 1, bytes, device_, bytes);
      ++traffic.uploads;
      traffic.uploaded_bytes += bytes;
    }
    return device_;
  }
  char* device() const { return device_; }
  int64_t capacity() const { return capacity_; }

 private:
  static constexpr int64_t kLeastBytes = int64_t{64} << 10;
  char* device_ = nullptr;
  int64_t capacity_ = 0;
};

}  // namespace drover::cuda
