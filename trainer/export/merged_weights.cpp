#include "trainer/export/merged_weights.h"

#include <algorithm>

namespace drover {

void MergedWeights::read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) {
  const StoredType type = base_.plain_dtype(spec.name);
  const int64_t number = size_of(to.dtype), at_once = rows_of_a_piece(spec.cols), end = row + to.rows;
  MergedTensor merged = rows_.tensor(spec.name);
  // The pieces of a written model: products of other pieces might be summed in another order.
  for (int64_t first = row / at_once * at_once; first < end; first += at_once) {
    merged.read(first, std::min(at_once, spec.rows - first));
    std::vector<float>& values = merged.sum();
    rounded(type, values);
    merged.check(type, values);
    const int64_t last = std::min(first + static_cast<int64_t>(values.size()) / spec.cols, end);
    for (int64_t r = std::max(first, row); r < last; ++r) {
      const float* from = values.data() + (r - first) * spec.cols + col;
      convert(StoredType::f32, reinterpret_cast<const std::byte*>(from), to.cols, to.dtype,
              static_cast<char*>(to.data) + (r - row) * to.cols * number);
    }
  }
}

}  // namespace drover
