#include "trainer/export/merged_weights.h"

#include <algorithm>

namespace drover {

namespace {

constexpr int64_t kRowsAtOnce = 1024;

}  // namespace

void MergedWeights::read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) {
  const StoredType type = base_.plain_dtype(spec.name);
  const int64_t number = size_of(to.dtype);
  rows_.each(spec.name, type, kRowsAtOnce, [&](int64_t first, std::vector<float>& values) {
    rounded(type, values);
    const int64_t end = std::min(first + static_cast<int64_t>(values.size()) / spec.cols, row + to.rows);
    for (int64_t r = std::max(first, row); r < end; ++r) {
      const float* from = values.data() + (r - first) * spec.cols + col;
      convert(StoredType::f32, reinterpret_cast<const std::byte*>(from), to.cols, to.dtype,
              static_cast<char*>(to.data) + (r - row) * to.cols * number);
    }
  });
}

}  // namespace drover
