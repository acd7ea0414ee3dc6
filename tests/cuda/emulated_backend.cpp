// The CUDA backend over the emulation in this folder: device memory is host memory, and every call is done when it returns.
#include <cstdlib>

#include "kernels/cuda/cuda_backend.h"
#include "tests/cuda/training.h"
#include "tests/reference/backend_under_test.h"

namespace drover::reference {

std::unique_ptr<Backend> backend_under_test() { return std::make_unique<cuda::CudaBackend>(cuda::CudaSettings{}); }
void* allocate_shared(size_t bytes) { return std::malloc(bytes); }
void release_shared(void* block) { std::free(block); }
void finish() {}

}  // namespace drover::reference

namespace drover {

namespace {

class SeenAsHost : public Memory {
 public:
  explicit SeenAsHost(Memory& inner) : inner_(inner) {}
  void* allocate(int64_t bytes) override { return inner_.allocate(bytes); }
  void release(void* block, int64_t bytes) override { inner_.release(block, bytes); }
  Where where() const override { return Where::host; }

 private:
  Memory& inner_;
};
class EmulatedCuda : public cuda::CudaBackend {
 public:
  explicit EmulatedCuda(bool deterministic) : CudaBackend({.deterministic = deterministic}), seen_(CudaBackend::memory()) {}
  Memory& memory() override { return seen_; }

 private:
  SeenAsHost seen_;
};

}  // namespace

std::unique_ptr<cuda::CudaBackend> cuda_under_test(bool deterministic) { return std::make_unique<EmulatedCuda>(deterministic); }

}  // namespace drover
