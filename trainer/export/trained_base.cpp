#include "trainer/export/trained_base.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "kernels/base/nf4.h"
#include "model/dense_pieces.h"

namespace drover {

namespace {

bool is_linear_of_block(const std::string& name, const std::vector<int64_t>& shape) {
  return shape.size() == 2 && shape[1] > 1 && name.find(".layers.") != std::string::npos;
}

}  // namespace

void TrainedBase::read(const std::string& name, int64_t row, int64_t rows, int64_t cols, float* out) {
  const std::vector<int64_t> shape = base_.shape(name);
  std::optional<StoredScaling> made;
  if (is_linear_of_block(name, shape)) {
    const std::optional<StoredScaling> stored = base_.scaling(name);
    made = held_scaling(stored, as_);
    if (made == stored) made.reset();
  }
  if (!made) return base_.read(name, row, rows, 0, cols, DType::f32, out);
  const ParamSpec spec{.name = name, .rows = shape[0], .cols = cols};
  if (made->kind == StoredScaling::Kind::fp8) return read_fp8(spec, {row, rows}, out);
  read_nf4(spec, {row, rows}, out);
}

// Whole blocks are read, and what was asked for is cut from them.
void TrainedBase::read_fp8(const ParamSpec& spec, Range rows, float* out) {
  const int64_t high = kMadeBlocks.rows, begin = rows.begin / high * high,
                end = std::min((rows.begin + rows.count + high - 1) / high * high, spec.rows);
  const Fp8Slice made =
      make_fp8(floats(base_, spec, {begin, end - begin}, {0, spec.cols}), begin, end - begin, 0, spec.cols);
  dequantise(cut(made, rows.begin, rows.count, 0, spec.cols), out);
}

void TrainedBase::read_nf4(const ParamSpec& spec, Range rows, float* out) {
  if (spec.cols % kNf4Block != 0) {
    fail(Fault::bad_data, "{} has {} columns, and NF4 needs whole blocks of {}; nothing was trained over such a weight",
         spec.name, spec.cols, kNf4Block);
  }
  if (!scales_ || scaled_ != spec.name) scales_.emplace(nf4_scales(base_, spec, 1));
  scaled_ = spec.name;
  const std::vector<float> values = floats(base_, spec, rows, {0, spec.cols});
  dequantise(scales_->make(values, rows.begin, rows.count, 0, spec.cols), out);
}

}  // namespace drover
