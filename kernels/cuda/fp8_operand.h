// Operands of products in fp8 (kernels/fp8_products.h) as cuBLASLt takes them on Hopper: both with the summed index
// along their rows, rows of 16 bytes at least, whole runs of 128 where blocks have scales. A short run is filled up
// with zeros, which change no sum.
//   x or dy:  codes (rows, depth), rows a multiple of 16; scales (runs, rows), or a vector (rows)
//   w:        codes (columns of the result, depth); scales (blocks of columns, runs rounded up to 4), or a vector
// Source of the scales' order: cuBLAS 13.0's documentation of cublasLtMatmulMatrixScale_t; NVIDIA's Transformer Engine,
// which rounds up the same way.
#pragma once
#include <cuda_runtime_api.h>

#include "kernels/cuda/traffic.h"
#include "kernels/fp8_products.h"

namespace drover::cuda {

constexpr int64_t rounded_up_to(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// The runs of a sum, and where each lies in `depth`.
struct Fp8Depth {
  static constexpr int kMostParts = 4, kBlock = 128;
  bool blocks = false;
  int parts = 0;
  int64_t count = 0, runs = 0;  // of all parts
  int64_t begin[kMostParts] = {}, end[kMostParts] = {}, first_run[kMostParts] = {};

  int64_t depth() const { return blocks ? runs * kBlock : count; }
};
Fp8Depth input_depth(const Fp8Weight& w);
Fp8Depth output_depth(const Fp8Weight& w);

struct Fp8Operand {
  Tensor codes;  // u8
  const float* scales = nullptr;
};

// Memory for the operands of one product, and what fills it.
class Fp8Operands {
 public:
  // Of x or dy. More rows are multiplied some at a time.
  static constexpr int64_t kCodeBytes = int64_t{64} << 20, kMostRows = 32'768;

  Fp8Operands(cudaStream_t stream, Traffic& traffic) : stream_(stream), traffic_(traffic) {}
  ~Fp8Operands();
  Fp8Operands(const Fp8Operands&) = delete;
  Fp8Operands& operator=(const Fp8Operands&) = delete;

  void expect() { expected_ = true; }  // products: their memory is counted, and taken when the first is computed
  int64_t workspace_bytes() const { return expected_ ? kBytes : 0; }
  // How many rows of `all` at once, in equal parts.
  static int64_t rows_at_once(int64_t all, const Fp8Depth& depth);

  // times: where w's rows have scales that stand inside the sum, they multiply x first.
  Fp8Operand quantise(Tensor x, const Fp8Depth& depth, float bound, const Fp8Weight* times);
  // Rows [begin, begin + count) of w for y: as they lie where runs are whole, else in `panel` (count, depth). With
  // blocks, of one part, from the beginning of a block.
  Fp8Operand rows_of(const Fp8Weight& w, const Fp8Depth& depth, int64_t begin, int64_t count, Tensor panel);
  // Columns [begin, begin + count) of w for dx, in `panel` (count, depth).
  Fp8Operand columns_of(const Fp8Weight& w, const Fp8Depth& depth, int64_t begin, int64_t count, Tensor panel);

 private:
  static constexpr int64_t kScaleBytes = kCodeBytes / 16, kWeightScaleBytes = int64_t{4} << 20;
  static constexpr int64_t kBytes = kCodeBytes + kScaleBytes + kWeightScaleBytes;
  struct Strides {
    int64_t row, col;
  };
  float* weight_scales(const float* from, const int32_t* row_of, int64_t rows, int64_t cols, Strides strides);
  char* memory();
  float* scales() { return reinterpret_cast<float*>(memory() + kCodeBytes); }

  cudaStream_t stream_;
  Traffic& traffic_;
  bool expected_ = false;
  void* memory_ = nullptr;
};

}  // namespace drover::cuda
