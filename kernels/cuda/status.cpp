// Whether there is a GPU to run on. The driver is only asked, never required: without one cudaGetDeviceCount says so.
#include <cudnn_version.h>

#include "kernels/base/error.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/devices/devices.h"

namespace drover {

namespace {

std::string version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }  // CUDA's 13000 is 13.0

}  // namespace

CudaStatus cuda_status() {
  static const CudaStatus status = [] {
    const size_t lt = cublasLtGetVersion();
    CudaStatus s{.built = true};
    s.libraries = fmt::format("CUDA {}, cuBLASLt {}.{}.{}, cuDNN {}.{}.{}", version(CUDART_VERSION), lt / 10000, lt / 100 % 100, lt % 100, CUDNN_MAJOR, CUDNN_MINOR, CUDNN_PATCHLEVEL);
    int driver = 0, count = 0;
    cudaDriverGetVersion(&driver);
    if (driver == 0) {
      s.why_not = "no NVIDIA driver is installed; install one for CUDA 13 (580 or newer) and see that nvidia-smi lists the GPU";
      return s;
    }
    const cudaError_t found = cudaGetDeviceCount(&count);
    if (found != cudaSuccess || count == 0) {
      s.why_not = fmt::format("the driver (CUDA {}) finds no GPU{}; see that nvidia-smi lists one, and that CUDA_VISIBLE_DEVICES does not hide it", version(driver),
                              found == cudaSuccess ? "" : fmt::format(" ({})", cudaGetErrorString(found)));
      return s;
    }
    cudaDeviceProp p{};
    cuda::check(cudaGetDeviceProperties(&p, 0), "cudaGetDeviceProperties");
    s.gpu = fmt::format("{}, {:.1f} GiB, driver for CUDA {}", p.name, static_cast<double>(p.totalGlobalMem) / (1 << 30), version(driver));
    if (p.major != 9 || p.minor != 0) {
      s.why_not = fmt::format("{} has compute capability {}.{}, and the kernels are built for 9.0 (H100, H200)", p.name, p.major, p.minor);
      return s;
    }
    s.usable = true;
    return s;
  }();
  return status;
}

std::unique_ptr<Backend> make_cuda_backend(const CudaChoice& choice) {
  const CudaStatus status = cuda_status();
  if (!status.usable) fail(Exit::bad_recipe, "device: cuda cannot be used here: {}", status.why_not);
  return std::make_unique<cuda::CudaBackend>(cuda::CudaSettings{choice.device, choice.deterministic});
}

}  // namespace drover
