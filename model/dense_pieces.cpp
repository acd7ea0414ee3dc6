#include "model/dense_pieces.h"

#include <algorithm>

#include "kernels/base/in_order.h"
#include "kernels/base/nf4.h"

namespace drover {

void in_pieces(Range rows, int64_t cols, int64_t block, const std::function<void(int64_t begin, int64_t count)>& f,
               int64_t most) {
  const int64_t most_rows = std::max<int64_t>(most / cols / block, 1) * block;
  for (int64_t begin = rows.begin, end = rows.begin + rows.count; begin < end;) {
    const int64_t count = std::min(end, (begin / block * block) + most_rows) - begin;
    f(begin, count);
    begin += count;
  }
}

std::vector<float> floats(WeightSource& source, const ParamSpec& spec, Range rows, Range cols) {
  std::vector<float> values(static_cast<size_t>(rows.count * cols.count));
  source.read(spec, rows.begin, cols.begin, matrix(values.data(), rows.count, cols.count));
  return values;
}

Nf4Scales nf4_scales(WeightSource& source, const ParamSpec& spec, int threads) {
  std::vector<float> absmax;
  InOrder<std::vector<float>> pieces(
      threads, [&](const std::vector<float>& some) { absmax.insert(absmax.end(), some.begin(), some.end()); });
  const auto read = [&](int64_t begin, int64_t count) {
    pieces.add([values = floats(source, spec, {begin, count}, {0, spec.cols})] {
      std::vector<float> some;
      for (size_t i = 0; i < values.size(); i += kNf4Block)
        some.push_back(largest_magnitude({values.data() + i, static_cast<size_t>(kNf4Block)}));
      return some;
    });
  };
  in_pieces({0, spec.rows}, spec.cols, 1, read, kFloatsOfAThread);
  pieces.finish();
  return {std::move(absmax), spec.cols};
}

}  // namespace drover
