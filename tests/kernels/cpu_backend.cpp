#include "kernels/cpu/cpu_backend.h"

#include <cstdlib>

#include "tests/reference/backend_under_test.h"

namespace drover::reference {

std::unique_ptr<Backend> backend_under_test() { return make_cpu_backend(2); }
void* allocate_shared(size_t bytes) { return std::malloc(bytes); }
void release_shared(void* block) { std::free(block); }
void finish() {}

}  // namespace drover::reference
