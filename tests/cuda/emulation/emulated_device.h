// CUDA's device side on the host, for tests: the threads of a block are fibers of one host thread, run in turn; a
// barrier or a shuffle gives the turn away until all threads of the block or warp have come. Blocks run one after
// another. What it cannot show: races between warps, and speed.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#undef __shared__
#define __shared__ static  // one block runs at a time
#undef __launch_bounds__
#define __launch_bounds__(...)

namespace drover::cuda::emulation {

struct Place {
  uint3 thread{}, block{};
  dim3 block_dim{}, grid_dim{};
};
extern thread_local Place place;  // of the fiber that runs

void run(const char* name, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread);
// Where a test wants them: the kernels and cuBLASLt's products in the order in which the device does them, a line each.
extern std::vector<std::string>* done_by_device;
char* dynamic_shared();
void barrier();  // __syncthreads
// Every lane named in the mask leaves 8 bytes and reads those of `from`.
uint64_t exchange(unsigned mask, uint64_t mine, int from);
unsigned vote(unsigned mask, bool predicate);
inline int lane() { return static_cast<int>((place.thread.x + place.thread.y * place.block_dim.x) % 32); }

template <typename T>
T exchange_as(unsigned mask, T mine, int from) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &mine, sizeof(T));
  bits = exchange(mask, bits, from);
  T theirs;
  __builtin_memcpy(&theirs, &bits, sizeof(T));
  return theirs;
}

}  // namespace drover::cuda::emulation

#define threadIdx (::drover::cuda::emulation::place.thread)
#define blockIdx (::drover::cuda::emulation::place.block)
#define blockDim (::drover::cuda::emulation::place.block_dim)
#define gridDim (::drover::cuda::emulation::place.grid_dim)

inline void __syncthreads() { drover::cuda::emulation::barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { drover::cuda::emulation::vote(mask, true); }
inline int __any_sync(unsigned mask, int predicate) { return drover::cuda::emulation::vote(mask, predicate != 0) != 0; }
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return drover::cuda::emulation::vote(mask, predicate != 0);
}
template <typename T>
T __shfl_sync(unsigned mask, T v, int from, int width = 32) {
  const int lane = drover::cuda::emulation::lane();
  return drover::cuda::emulation::exchange_as(mask, v, lane / width * width + from % width);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32) {
  (void)width;
  return drover::cuda::emulation::exchange_as(mask, v, drover::cuda::emulation::lane() ^ bits);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
  const int lane = drover::cuda::emulation::lane(), from = lane + static_cast<int>(by);
  return drover::cuda::emulation::exchange_as(mask, v, from / width == lane / width ? from : lane);
}
template <typename T>
T __ldg(const T* p) {
  return *p;
}
template <typename T>
T __ldcg(const T* p) {
  return *p;
}
inline void __threadfence() {}
inline unsigned atomicAdd(unsigned* at, unsigned by) {
  return std::exchange(*at, *at + by);
}  // a kernel's blocks run one after another
template <typename T>
T __ldcs(const T* p) {
  return *p;
}
