// Many copies in one launch: f32 parameters to their copies in the computing dtype. The table of them is copied to the
// device once and is kept while it stays the same.
#pragma once
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/device_image.h"

namespace drover::cuda {

class CopyTable {
 public:
  CopyTable(cudaStream_t stream, Uploader& uploader, Traffic& traffic)
      : stream_(stream), uploader_(uploader), traffic_(traffic) {}
  static bool takes(
      std::span<const CopyPair> pairs);  // from f32, all to one dtype of f32 and bf16, each of less than 2^31 packs
  void copy(std::span<const CopyPair> pairs);  // that it takes
  int64_t bytes() const { return device_.capacity(); }

 private:
  cudaStream_t stream_;
  Uploader& uploader_;
  Traffic& traffic_;
  std::vector<char> image_;  // what lies on the device
  DeviceImage device_;
};

}  // namespace drover::cuda
