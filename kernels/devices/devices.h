// Which devices this build and this machine have, found at run time: one program starts with and without a GPU, a
// driver and CUDA's libraries.
#pragma once
#include <memory>
#include <string>

#include "kernels/backend.h"
#include "kernels/comm/mesh.h"

namespace drover {

struct CudaStatus {
  bool built = false;   // the CUDA backend lies next to this program (cuda_module.h)
  bool usable = false;  // and this machine has a GPU and driver it runs on
  std::string why_not;  // what is missing, and what to do; empty where usable
  int devices = 0;      // GPUs that this process sees
  std::string gpu;      // the first: "NVIDIA H100 80GB HBM3, 79.1 GiB, driver 13.0"; empty where there is none
};
CudaStatus cuda_status();
std::string
cuda_libraries();  // "CUDA 13.0, cuBLASLt 13.1.0, cuDNN 9.19.0", or why they cannot be loaded; empty where not built
std::string cuda_module_file();  // the backend's file; empty where not built

struct CudaIdentity {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  std::string uuid;  // "GPU-c0ffee…", one of a kind in the world
  std::string pci;   // "0000:1b:00.0"
};
CudaIdentity cuda_identity(int device);

struct CudaChoice {
  int device = 0;
  bool deterministic = false;
};
std::unique_ptr<Backend> make_cuda_backend(
    const CudaChoice& choice);  // bad_recipe with `why_not` where it is not usable

// NCCL between the GPUs of several ranks (kernels/nccl/nccl_mesh.h). `backend` is of make_cuda_backend with this
// choice.
std::string nccl_version();  // bad_recipe where it cannot be loaded
Mesh make_nccl_mesh(const Mesh& host, Backend& backend, const CudaChoice& choice);

enum class DeviceKind : uint8_t { cpu, cuda };

// Of the backend that a device has, for plans of machines that are not at hand.
BackendTraits traits_of(DeviceKind device);

}  // namespace drover
