#include "kernels/cuda_module/cuda_module.h"

#include <cudnn.h>

#include "kernels/base/error.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/uuid.h"
#include "kernels/nccl/nccl_mesh.h"

namespace drover {

namespace {

std::string version(int number) {
  return fmt::format("{}.{}", number / 1000, number % 1000 / 10);
}  // CUDA's 13000 is 13.0

std::string libraries() {
  const size_t lt = cublasLtGetVersion(), dnn = cudnnGetVersion();
  return fmt::format("CUDA {}, cuBLASLt {}.{}.{}, cuDNN {}.{}.{}", version(CUDART_VERSION), lt / 10000, lt / 100 % 100,
                     lt % 100, dnn / 10000, dnn / 100 % 100, dnn % 100);
}

CudaStatus status() {
  CudaStatus s{.built = true};
  int driver = 0, count = 0;
  cudaDriverGetVersion(&driver);
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found != cudaSuccess || count == 0) {
    s.why_not = fmt::format(
        "the driver (CUDA {}) finds no GPU{}; see that nvidia-smi lists one, and that CUDA_VISIBLE_DEVICES does not "
        "hide it",
        version(driver), found == cudaSuccess ? "" : fmt::format(" ({})", cudaGetErrorString(found)));
    return s;
  }
  s.devices = count;
  cudaDeviceProp p{};
  cuda::check(cudaGetDeviceProperties(&p, 0), "cudaGetDeviceProperties");
  s.gpu = fmt::format("{}, {:.1f} GiB, driver for CUDA {}", p.name, static_cast<double>(p.totalGlobalMem) / (1 << 30),
                      version(driver));
  if (p.major != 9 || p.minor != 0) {
    s.why_not = fmt::format("{} has compute capability {}.{}, and the kernels are built for 9.0 (H100, H200)", p.name,
                            p.major, p.minor);
    return s;
  }
  s.usable = true;
  return s;
}

CudaIdentity identity(int device) {
  cudaDeviceProp p{};
  cuda::check(cudaGetDeviceProperties(&p, device), "cudaGetDeviceProperties");
  return {p.name, cuda::uuid_of(p), fmt::format("{:04x}:{:02x}:{:02x}.0", p.pciDomainID, p.pciBusID, p.pciDeviceID)};
}

std::unique_ptr<Backend> make_backend(const CudaChoice& choice) {
  return std::make_unique<cuda::CudaBackend>(cuda::CudaSettings{choice.device, choice.deterministic});
}

std::string version_of_nccl() { return nccl::version_of(nccl::library()); }

Mesh mesh_over_nccl(const Mesh& host, Backend& backend, const CudaChoice& choice) {
  return nccl::make_mesh(nccl::library(), host, static_cast<cuda::CudaBackend&>(backend),
                         {choice.device, choice.deterministic});
}

}  // namespace

// None has the name of a function of devices.h: the table would hold that one, which asks the table.
extern "C" const CudaModule drover_cuda_module;
const CudaModule drover_cuda_module{status, libraries, identity, make_backend, version_of_nccl, mesh_over_nccl};

}  // namespace drover
