// Quantised frozen weights widened, for products that want plain numbers: value = rounded(level · scale), as the weight
// says (kernels/base/quantised.h), then rounded to the dtype that is asked for. Bit for bit what the host computes.
// Where a whole weight is too much for the panel, products take it part by part.
#pragma once
#include <cuda_runtime_api.h>

#include <algorithm>

#include "kernels/cuda/traffic.h"
#include "kernels/weight.h"

namespace drover::cuda {

class Dequantiser {
 public:
  static constexpr int64_t kMostPanelBytes = int64_t{256} << 20;  // Llama 3.1 8B's largest takes 228 MiB in bf16

  explicit Dequantiser(cudaStream_t stream, Traffic& traffic, int64_t most_panel_bytes = kMostPanelBytes)
      : stream_(stream), traffic_(traffic), most_panel_bytes_(most_panel_bytes) {}
  ~Dequantiser();
  Dequantiser(const Dequantiser&) = delete;
  Dequantiser& operator=(const Dequantiser&) = delete;

  // The panel will hold this weight, all of it in bf16 or as much as it may: memory that is counted from now on and
  // taken when it is first used.
  void expect(const Weight& w);
  int64_t workspace_bytes() const { return std::max(expected_bytes_, panel_bytes_); }

  // to (rows, cols) = rows from `row` and columns from `col` on of the weight.  f32 | bf16, any pitch.
  void operator()(const Weight& w, int64_t row, int64_t col, Tensor to);

  // How many rows with all columns, and how many columns (a multiple of 64) with all rows, a panel holds; room for the
  // low-rank terms is counted in.
  int64_t panel_rows(const Weight& w, int64_t strip, DType dtype) const;
  int64_t panel_columns(const Weight& w, int64_t strip, DType dtype) const;
  // (rows, cols) of what was expected, uninitialised; one at a time. Its rows begin on 128-byte boundaries.
  Tensor panel(int64_t rows, int64_t cols, DType dtype);

 private:
  cudaStream_t stream_;
  Traffic& traffic_;
  int64_t most_panel_bytes_;
  int64_t expected_bytes_ = 0, panel_bytes_ = 0;
  void* panel_ = nullptr;
};

}  // namespace drover::cuda
