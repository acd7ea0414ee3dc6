#include "trainer/export/merged_rows.h"

#include <cmath>
#include <cstring>

#include "kernels/base/error.h"
#include "model/files/factor.h"

namespace drover {

namespace {

constexpr int64_t kSamplesOfARow = 4;

// How far one rounding to the type moves a number: ulp/2 relative to it, and of the smallest that the type has.
struct Rounding {
  double relative = 0, absolute = 0, largest = 0;
};
Rounding rounding_of(StoredType type) {
  if (type == StoredType::bf16) return {0x1p-8, 0, 3.3e38};
  if (type == StoredType::f16) return {0x1p-11, 0x1p-25, 65504};
  return {0x1p-24, 0, 3.4e38};
}

// Some numbers of the merged weight, computed by themselves: every row at a few columns, others from row to row.
class Samples {
 public:
  Samples(const std::string& name, StoredType type, double scale, const AdapterMatrix& a, const AdapterMatrix& b)
      : name_(name), rounding_(rounding_of(type)), scale_(scale), a_(a), b_(b) {}

  // The base's rows, from `first` on, before the adapter is added.
  void of_base(const std::vector<float>& w, int64_t first, int64_t count, int64_t cols) {
    first_ = first, cols_ = cols;
    base_.clear();
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t s = 0; s < kSamplesOfARow; ++s) base_.push_back(w[static_cast<size_t>(r * cols + column(r, s))]);
    }
  }
  void compare(const std::vector<float>& merged) const {
    for (size_t i = 0; i < base_.size(); ++i) {
      const auto r = static_cast<int64_t>(i) / kSamplesOfARow,
                 col = column(r, static_cast<int64_t>(i) % kSamplesOfARow);
      double sum = 0, size = std::abs(static_cast<double>(base_[i]));
      for (int64_t k = 0; k < b_.cols; ++k) {
        const double term = scale_ * b_.values[static_cast<size_t>((first_ + r) * b_.cols + k)] *
                            a_.values[static_cast<size_t>(k * cols_ + col)];
        sum += term, size += std::abs(term);
      }
      check(base_[i] + sum, size, merged[static_cast<size_t>(r * cols_ + col)], first_ + r, col);
    }
  }

 private:
  int64_t column(int64_t row, int64_t sample) const {
    return ((first_ + row) * 7919 + sample * (cols_ / 4 + 1)) % cols_;
  }

  // A sum of n terms in fp32 is off by at most n of its roundings of their sizes.
  void check(double expected, double size, double merged, int64_t row, int64_t col) const {
    if (std::abs(expected) > rounding_.largest) {
      fail(Fault::bad_data,
           "{}: base and adapter together are {:.3g} in row {}, column {}, more than the base's number type can hold; "
           "nothing was written",
           name_, expected, row, col);
    }
    const double allowed = 1.01 * rounding_.relative * std::abs(expected) + rounding_.absolute +
                           static_cast<double>(b_.cols + 4) * 0x1p-24 * size;
    if (std::abs(merged - expected) <= allowed) return;
    fail(
        Fault::corruption,
        "{}: the merged weight is {:.9g} in row {}, column {}, where base and adapter together are {:.9g}; nothing was "
        "written. Export again; if it stays, this machine computes or stores wrongly",
        name_, merged, row, col, expected);
  }

  const std::string& name_;
  Rounding rounding_;
  double scale_;
  const AdapterMatrix &a_, &b_;
  int64_t first_ = 0, cols_ = 0;
  std::vector<float> base_;
};

Tensor matrix_of(std::vector<float>& values, int64_t rows, int64_t cols) { return matrix(values.data(), rows, cols); }

void check_finite(const std::string& name, const std::vector<float>& values) {
  for (const float v : values) {
    if (!std::isfinite(v)) {
      fail(Fault::bad_data,
           "{}: base and adapter together are more than the base's number type can hold; nothing was written", name);
    }
  }
}

}  // namespace

std::vector<std::byte> rounded(StoredType type, std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * static_cast<size_t>(size_of(type)));
  for (size_t i = 0; i < values.size(); ++i) {
    if (type == StoredType::f32) {
      std::memcpy(bytes.data() + i * 4, &values[i], 4);
    } else {
      const uint16_t bits = type == StoredType::bf16 ? bf16(values[i]).bits : half_of_float(values[i]);
      std::memcpy(bytes.data() + i * 2, &bits, 2);
      values[i] = type == StoredType::bf16 ? static_cast<float>(bf16(values[i])) : float_of_half(bits);
    }
  }
  return bytes;
}

void MergedRows::each(const std::string& name, StoredType rounding, int64_t rows_at_once, const Store& store) {
  const std::vector<int64_t> shape = base_.shape(name);
  if (!can_convert(base_.plain_dtype(name))) {
    fail(Fault::bad_data, "{} is stored as {}; merged models are written from F32, F16 and BF16", name,
         name_of(base_.plain_dtype(name)));
  }
  const std::string path = name.substr(0, name.rfind('.'));           // without ".weight"
  const bool linear = shape.size() == 2 && path != kEmbeddingModule;  // BaseWeights adds the embedding's
  const auto target = linear ? matcher_.match(path) : std::nullopt;
  const double scale = target ? target->scale : 0;
  AdapterMatrix a, b;
  if (target)
    a = adapter_.factor(path + std::string(suffix_of(Factor::a))),
    b = adapter_.factor(path + std::string(suffix_of(Factor::b)));

  const int64_t rows = shape[0], cols = shape.size() > 1 ? shape[1] : 1;
  Samples samples(name, rounding, scale, a, b);
  std::vector<float> w;
  for (int64_t row = 0; row < rows; row += rows_at_once) {
    const int64_t count = std::min(rows_at_once, rows - row);
    w.resize(static_cast<size_t>(count * cols));
    base_.read(name, row, count, 0, cols, DType::f32, w.data());
    if (target) {
      samples.of_base(w, row, count, cols);
      backend_.gemm(Trans::no, Trans::no, static_cast<float>(scale),
                    matrix(b.values.data() + row * b.cols, count, b.cols), matrix_of(a.values, a.rows, a.cols), 1,
                    matrix_of(w, count, cols));
    }
    store(row, w);
    if (target) samples.compare(w);
    if (target || base_.changed(name)) check_finite(name, w);
  }
}

}  // namespace drover
