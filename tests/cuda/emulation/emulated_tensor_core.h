// The tensor cores' tiles (kernels/cuda/tensor_core.h) and asynchronous copies to shared memory (cuda_pipeline.h) on
// the host. A lane holds what its own half row of the result needs. A copy is made only when its thread waits for it,
// so that a kernel that reads before it has waited finds what lay there before.
#pragma once
#include "emulated_device.h"
#include "kernels/tensor.h"

namespace drover::cuda {

namespace emulation {

void copy_later(void* to, const void* from, size_t bytes,
                size_t zeros);  // of the running thread; `zeros` of the bytes, the last, are not read
void commit_copies();
void wait_for_copies(size_t but_the_last);

}  // namespace emulation

struct LeftTile {
  float value[16];  // of the lane's row
};
struct RightTile {
  float value[16][8];  // of the lane's columns
};
struct SumTile {
  float value[8];
};

class TileSource {
 public:
  TileSource(const bf16* matrix, int pitch) : matrix_(matrix), pitch_(pitch) {}
  LeftTile left(int at) const;
  LeftTile left_transposed(int at) const;
  RightTile right(int at) const;

 private:
  const bf16* tile(int at) const;
  const bf16* matrix_;
  int pitch_;
};
void clear(SumTile& sum);
void add_product(SumTile& sum, const LeftTile& a, const RightTile& b);
void store(const SumTile& sum, float* to, int pitch);
inline void copy_16_bytes(bf16* to, const bf16* from) { emulation::copy_later(to, from, 16, 0); }
inline void copy_16_bytes_or_zeros(bf16* to, const bf16* from, bool exists) {
  emulation::copy_later(to, from, 16, exists ? 0 : 16);
}

}  // namespace drover::cuda

inline void __pipeline_commit() { drover::cuda::emulation::commit_copies(); }
inline void __pipeline_wait_prior(size_t but_the_last) { drover::cuda::emulation::wait_for_copies(but_the_last); }
