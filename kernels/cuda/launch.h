// Kernel launches, checked and counted. The arguments are converted to the kernel's parameter types here, so that a
// wrong one does not compile. Compiled without nvcc, for tests, a kernel runs on the host, thread for thread:
// tests/cuda/emulation has the header.
#pragma once
#include <cuda_runtime.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/check.h"
#if !defined(__CUDACC__)
#include "emulated_device.h"
#include "streams.h"
#endif

namespace drover::cuda {

inline std::atomic<int64_t> launch_count = 0;  // of this process; for tests and the profile

template <typename... Params>
void launch(const char* name, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
            cudaStream_t stream, std::type_identity_t<Params>... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;  // nothing to do
  ++launch_count;
#if defined(__CUDACC__)
  constexpr size_t kUnasked = 48 << 10;  // more has to be asked for by name
  if (shared_bytes > kUnasked) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          name);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, args...), name);
#else
  emulation::enqueue(stream, [=] { emulation::run(name, grid, block, shared_bytes, [&] { kernel(args...); }); });
#endif
}

}  // namespace drover::cuda
