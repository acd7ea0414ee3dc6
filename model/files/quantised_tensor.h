// One quantised weight of a model directory, in its tensors of codes and scales:
//   fp8  X.weight F8_E4M3 (rows, cols), and X.weight_scale or X.weight_scale_inv
//   nf4  X.weight, two codes a byte, .absmax (F32; U8 with double quantisation, then with .nested_absmax and
//        .nested_quant_map), .quant_map, and .quant_state.bitsandbytes__nf4, which is JSON
// All of its sizes and all scales but NF4's .absmax are checked when it is made; codes, and .absmax, where they are
// read. A complaint is bad_data and names the tensor.
#pragma once
#include <functional>
#include <optional>
#include <string>

#include "kernels/base/quantised.h"
#include "model/files/quantisation_config.h"
#include "model/files/safetensors.h"
#include "model/files/stored_scaling.h"

namespace drover {

// A tensor and the file that holds it.
struct PlacedTensor {
  const StoredTensor* tensor = nullptr;
  const SafetensorsFile* file = nullptr;
};

class QuantisedTensor {
 public:
  using Find = std::function<std::optional<PlacedTensor>(const std::string&)>;  // nothing where there is none

  // Nothing where the weight is stored in plain numbers.
  static std::optional<QuantisedTensor> open(const std::string& weight, const QuantisationConfig& config,
                                             const Find& find);

  const StoredScaling& scaling() const { return scaling_; }
  const std::vector<float>& levels() const { return levels_; }  // of NF4's codes of absmax; empty where there are none
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  // Rows [row, row + rows) and columns [col, col + cols); NF4's begin and end between blocks of 64.
  Fp8Slice read_fp8(int64_t row, int64_t rows, int64_t col, int64_t cols) const;
  Nf4Slice read_nf4(int64_t row, int64_t rows, int64_t col, int64_t cols) const;
  // Bytes of the files that a slice was read from.
  int64_t stored_bytes(const Fp8Slice& slice) const;
  int64_t stored_bytes(const Nf4Slice& slice) const;

 private:
  void open_fp8(const QuantisationConfig& config, const Find& find);
  void open_nf4(const Find& find);
  ScaleBlocks blocks_of(const QuantisationConfig& config) const;
  void check_scales() const;
  void check_codes(const Fp8Slice& slice) const;

  std::string name_;
  StoredScaling scaling_;
  int64_t rows_ = 0, cols_ = 0;
  PlacedTensor codes_;
  PlacedTensor scales_;  // fp8's scales, NF4's absmax
  PlacedTensor nested_;  // NF4's, with double quantisation
  std::vector<float> levels_;
  float offset_ = 0;
};

}  // namespace drover
