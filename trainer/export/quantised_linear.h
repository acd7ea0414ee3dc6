// A linear as a quantised model directory stores it, made from plain numbers: its tensors, and their bytes.
//   fp8  as transformers' FineGrainedFP8 has it: X.weight F8_E4M3 (rows, cols) and X.weight_scale_inv F32, a scale for
//        each block of 128 × 128
//   nf4  as bitsandbytes has it with double quantisation; model/files/quantised_tensor.h names the tensors
// Codes and scales are those that model/frozen_linear.h makes in memory.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/files/safetensors_writer.h"
#include "model/weight_source.h"
#include "trainer/export/relative_distance.h"

namespace drover {

class QuantisedLinear {
 public:
  using Put = std::function<void(const void* data, int64_t bytes)>;

  virtual ~QuantisedLinear() = default;
  virtual std::vector<TensorSpec> tensors() const = 0;  // X.weight first
  // The bytes of one of them, in pieces. The linear's weight is read for each tensor that needs it and never held
  // whole; NF4's X.weight comes before its .absmax. bad_data where a weight is not finite.
  virtual void write(const std::string& tensor, const Put& put) = 0;
  // Of what a reader gets from what was quantised, once X.weight was written.
  const RelativeDistance& error() const { return distance_; }
  // What a reader gets of the rows that were last read of the source, while X.weight is written; of one thread.
  std::function<void(const std::vector<float>& values)> on_written;

 protected:
  // Some rows as they were made.
  struct Rows {
    RelativeDistance distance;
    std::vector<float> read_back;
  };
  template <typename Slice>
  static Rows rows_of(const Slice& made, const std::vector<float>& values) {
    Rows rows{{}, std::vector<float>(values.size())};
    dequantise(made, rows.read_back.data());
    rows.distance.add(rows.read_back, values);
    return rows;
  }
  void wrote(const Rows& rows) {
    distance_.add(rows.distance);
    if (on_written) on_written(rows.read_back);
  }

 private:
  RelativeDistance distance_;
};

// Both outlive it. The calling thread reads the source, and `threads` make codes; bytes and error are the same for any
// number of them.
std::unique_ptr<QuantisedLinear> fp8_linear(WeightSource& source, const ParamSpec& spec, int threads = 1);
// `type` (f32, f16, bf16): what a reader rounds the values to. The weight's columns are blocks of 64.
std::unique_ptr<QuantisedLinear> nf4_linear(WeightSource& source, const ParamSpec& spec, StoredType type,
                                            int threads = 1);

}  // namespace drover
