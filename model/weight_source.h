// Where frozen weights come from: a Hugging Face directory, a formula (made-up models), or nowhere (plans).
#pragma once
#include <optional>

#include "kernels/backend.h"
#include "model/files/stored_scaling.h"
#include "model/weight_table.h"

namespace drover {

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Fills `to` (bf16 or f32, contiguous rows in the host's memory) with rows [row, row + to.rows) and columns
  // [col, col + to.cols) of the named tensor, dequantised where it is stored as codes.
  virtual void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) = 0;

  // How the tensor's codes are scaled; nothing where it is stored as plain numbers. The codes of such a tensor follow.
  virtual std::optional<StoredScaling> scaling(const ParamSpec& /*spec*/) { return {}; }
  virtual Fp8Slice read_fp8(const ParamSpec& spec, Range rows, Range cols);
  virtual Nf4Slice read_nf4(const ParamSpec& spec, Range rows, Range cols);
};

// Into a device's memory, by way of the host's where it is another; nothing where `to` is nowhere.
void read_to(WeightSource& source, const ParamSpec& spec, int64_t row, int64_t col, Tensor to, Backend& backend);

}  // namespace drover
