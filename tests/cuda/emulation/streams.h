// Streams of the emulated runtime. Those made while `asynchronous` is set are queues with a thread of their own that
// lingers now and then, so that work that does not wait for what it needs is likely to meet it unfinished; the others
// do everything at once.
#pragma once
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>
#include <functional>

namespace drover::cuda::emulation {

extern std::atomic<bool> asynchronous;
inline std::atomic<int64_t> waits = 0;  // calls that would wait for a device that is behind

void enqueue(cudaStream_t stream, std::function<void()> work);
// Whether this thread is capturing. What waits, allocates or copies from the host is an error then: CUDA refuses it, or
// would do it again with every launch.
bool capturing();

}  // namespace drover::cuda::emulation
