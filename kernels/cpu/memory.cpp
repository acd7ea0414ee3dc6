// Host pages for the arenas, and the construction of the backend.
#include <sys/mman.h>

#include "kernels/base/error.h"
#include "kernels/cpu/attention_common.h"
#include "kernels/cpu/cpu_backend.h"

namespace drover {
namespace cpu {

namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

// Pages come zero-filled and are counted by the system only once touched.
class HostMemory : public Memory {
 public:
  void* allocate(int64_t bytes) override {
    void* block = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) {
      fail(Fault::internal,
           "out of memory: {} bytes of host memory could not be had; use more ranks, a smaller micro-batch, or "
           "activation_checkpointing: full",
           bytes);
    }
    if (bytes >= kHugePage)
      madvise(block, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // an advice: its refusal costs speed only
    return block;
  }
  void release(void* block, int64_t bytes) override { munmap(block, static_cast<size_t>(bytes)); }
  Where where() const override { return Where::host; }
};

}  // namespace

std::unique_ptr<Memory> make_host_memory() { return std::make_unique<HostMemory>(); }

CpuBackend::CpuBackend(int threads)
    : memory_(make_host_memory()),
      threads_(threads),
      gemm_(threads),
      fp8_product_(gemm_, threads),
      row_product_(threads),
      attention_pieces_(lines_of(kPiecesFloats * static_cast<int64_t>(sizeof(float)))) {
  require(threads >= 1, "a backend has a thread at least");
}

// Without what generation alone needs (RowProduct's rows and scratch, attention's pieces of keys: 32 MiB and half a MiB
// for a thread at most): a page of theirs is the process's own only once a pass has needed it.
int64_t CpuBackend::workspace_bytes(int64_t rows) const {
  return gemm_.workspace_bytes(rows) + fp8_product_.workspace_bytes() + threads_ * attention_scratch_bytes(rows);
}

}  // namespace cpu

std::unique_ptr<Backend> make_cpu_backend(int threads) { return std::make_unique<cpu::CpuBackend>(threads); }

}  // namespace drover
