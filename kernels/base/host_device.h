// Marks functions that run on the host and, where nvcc compiles them, on the device too.
#pragma once

#if defined(__CUDACC__)
#define DROVER_HOST_DEVICE __host__ __device__
#else
#define DROVER_HOST_DEVICE
#endif
