// Host pages for the arenas, and the construction of the backend.
#include <omp.h>
#include <sys/mman.h>

#include "kernels/base/error.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/cpu_backend.h"

namespace drover {
namespace cpu {

namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

// Pages come zero-filled and are counted by the system only once touched.
class HostMemory : public Memory {
 public:
  void* allocate(int64_t bytes) override {
    void* block = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) {
      fail(Exit::internal, "out of memory: {} bytes of host memory could not be had; use more ranks, a smaller micro-batch, or activation_checkpointing: full", bytes);
    }
    if (bytes >= kHugePage) madvise(block, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // an advice: its refusal costs speed only
    return block;
  }
  void release(void* block, int64_t bytes) override { munmap(block, static_cast<size_t>(bytes)); }
  Where where() const override { return Where::host; }
};

}  // namespace

std::unique_ptr<Memory> make_host_memory() { return std::make_unique<HostMemory>(); }

CpuBackend::CpuBackend(int threads) : memory_(make_host_memory()), threads_(threads), gemm_(threads) {
  require(threads >= 1, "a backend has a thread at least");
}

int64_t CpuBackend::workspace_bytes() const { return gemm_.workspace_bytes() + threads_ * kAttentionScratchBytes; }

// oneDNN takes its number of threads from OpenMP's setting of the calling thread, which another backend may have set since.
void CpuBackend::do_gemm(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
  omp_set_num_threads(threads_);
  gemm_.gemm(ta, tb, alpha, a, b, beta, c);
}
void CpuBackend::do_linear(Tensor x, const Weight& w, const LowRankTerms& low_rank, bool accumulate, Tensor y) {
  omp_set_num_threads(threads_);
  for (const LowRankRun& run : low_rank_runs(low_rank.terms)) {
    low_rank_input(*this, x, run, low_rank.dropped, low_rank.u.columns(run.column, run.a.rows));
  }
  std::vector<Gemm::LowRankProduct> products;
  int64_t column = 0;
  for (const LowRank& term : low_rank.terms) {
    products.push_back({low_rank.u.columns(column, term.a.rows), term.b, term.column});
    column += term.a.rows;
  }
  gemm_.linear(x, values_of(w), products, accumulate, y);
}
void CpuBackend::do_linear_dx(Tensor dy, const Weight& w, Tensor v, Tensor a, Tensor dx) {
  omp_set_num_threads(threads_);
  gemm_.linear_dx(dy, values_of(w), v, a, dx);
}

}  // namespace cpu

std::unique_ptr<Backend> make_cpu_backend(int threads) { return std::make_unique<cpu::CpuBackend>(threads); }

}  // namespace drover
