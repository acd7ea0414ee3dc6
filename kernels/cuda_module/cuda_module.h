// The CUDA backend is a shared object, libdrover_cuda.so, next to the program or in ../lib: it is loaded when a GPU is
// asked for and there is a driver, so that a run on CPUs neither needs CUDA's libraries nor carries their memory (110
// MB a process). This table is what the program finds in it; what both contain (logging, errors) is the program's.
#pragma once
#include <string>

#include "kernels/devices/devices.h"

namespace drover {

struct CudaModule {
  CudaStatus (*status)();
  std::string (*libraries)();
  CudaIdentity (*identity)(int device);
  std::unique_ptr<Backend> (*make_backend)(const CudaChoice& choice);
  std::string (*nccl_version)();
  Mesh (*make_nccl_mesh)(const Mesh& host, Backend& backend, const CudaChoice& choice);
};
inline constexpr const char* kCudaModuleSymbol = "drover_cuda_module";

}  // namespace drover
