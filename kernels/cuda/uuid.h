// A GPU's name in the world, "GPU-c0ffee…".
#pragma once
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <string>

namespace drover::cuda {

inline std::string uuid_of(const cudaDeviceProp& gpu) {
  std::string text = "GPU-";
  for (char byte : gpu.uuid.bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

}  // namespace drover::cuda
