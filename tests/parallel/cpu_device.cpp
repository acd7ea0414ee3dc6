#include "kernels/cpu/cpu_backend.h"
#include "tests/parallel/device_under_test.h"

namespace drover {

Device device_under_test(const Mesh& host) { return {make_cpu_backend(1), host}; }

}  // namespace drover
