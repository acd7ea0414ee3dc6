// The op tests are built once per backend: this is what each variant provides.
#pragma once
#include <cstddef>
#include <memory>

#include "kernels/backend.h"

namespace drover::reference {

std::unique_ptr<Backend> backend_under_test();
void* allocate_shared(size_t bytes);  // memory that the test and the backend both read and write
void release_shared(void* block);
void finish();  // waits until the backend has done what was enqueued, so that the test may look

}  // namespace drover::reference
