// Weights of another source, drawn once and kept whole: for tests that read them again and again, from several threads.
#pragma once
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "model/weight_source.h"

namespace drover {

class KeptWeights : public WeightSource {
 public:
  explicit KeptWeights(WeightSource& inner) : inner_(inner) {}

  void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) override {
    const std::vector<float>& whole = of(spec);
    for (int64_t r = 0; r < to.rows; ++r) {
      for (int64_t c = 0; c < to.cols; ++c) {
        const float value = whole[static_cast<size_t>((row + r) * spec.cols + col + c)];
        const int64_t at = r * to.pitch + c;
        if (to.dtype == DType::f32) to.as<float>()[at] = value;
        if (to.dtype == DType::bf16) to.as<bf16>()[at] = bf16(value);
      }
    }
    const std::lock_guard lock(mutex_);
    ++reads_[spec.name];
  }
  int reads(const std::string& name) const { return reads_.contains(name) ? reads_.at(name) : 0; }

 private:
  const std::vector<float>& of(const ParamSpec& spec) {
    const std::lock_guard lock(mutex_);
    std::vector<float>& whole = whole_[spec.name];
    if (whole.empty()) {
      whole.resize(static_cast<size_t>(spec.rows * spec.cols));
      inner_.read(spec, 0, 0, matrix(whole.data(), spec.rows, spec.cols));
    }
    return whole;
  }

  WeightSource& inner_;
  std::mutex mutex_;
  std::map<std::string, std::vector<float>> whole_;
  std::map<std::string, int> reads_;
};

}  // namespace drover
