#include "trainer/export/merged_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/base/error.h"
#include "model/files/factor.h"

namespace drover {

namespace {

constexpr int64_t kSamplesOfARow = 4;
constexpr int64_t kFloatsAtOnce = int64_t{4} << 20;

// How far one rounding to the type moves a number: ulp/2 relative to it, and of the smallest that the type has.
struct TypeRounding {
  double relative = 0, absolute = 0, largest = 0;
};
TypeRounding rounding_of(StoredType type) {
  if (type == StoredType::bf16) return {0x1p-8, 0, 3.3e38};
  if (type == StoredType::f16) return {0x1p-11, 0x1p-25, 65504};
  return {0x1p-24, 0, 3.4e38};
}

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

int64_t rows_of_a_piece(int64_t cols) { return std::max<int64_t>(1, kFloatsAtOnce / cols); }

MergedTensor::MergedTensor(std::string name, const AdapterSource& adapter, const AdapterMatcher& matcher,
                           TrainedBase& base, Backend& backend)
    : name_(std::move(name)), base_(base), backend_(backend) {
  const std::vector<int64_t> shape = base.weights().shape(name_);
  rows_ = shape[0], cols_ = shape.size() > 1 ? shape[1] : 1;
  const std::string path = name_.substr(0, name_.rfind('.'));         // without ".weight"
  const bool linear = shape.size() == 2 && path != kEmbeddingModule;  // BaseWeights adds the embedding's
  const auto target = linear ? matcher.match(path) : std::nullopt;
  if (!target) return;
  scale_ = target->scale;
  a_ = adapter.factor(path + std::string(suffix_of(Factor::a)));
  b_ = adapter.factor(path + std::string(suffix_of(Factor::b)));
}

void MergedTensor::read(int64_t row, int64_t rows) {
  const auto size = static_cast<size_t>(rows * cols_);
  first_ = row;
  sum_.resize(size);
  base_.read(name_, row, rows, cols_, sum_.data());
  if (!scale_) return;
  base_rows_ = sum_;
  update_.resize(size);
  backend_.gemm(Trans::no, Trans::no, static_cast<float>(*scale_),
                matrix(b_.values.data() + row * b_.cols, rows, b_.cols), matrix(a_.values.data(), a_.rows, a_.cols), 0,
                matrix(update_.data(), rows, cols_));
  for (size_t i = 0; i < size; ++i) sum_[i] += update_[i];
}

void MergedTensor::check(StoredType type, const std::vector<float>& merged) const {
  if (scale_) {
    const int64_t rows = static_cast<int64_t>(merged.size()) / cols_;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t s = 0; s < kSamplesOfARow; ++s) {
        const int64_t col = ((first_ + r) * 7919 + s * (cols_ / 4 + 1)) % cols_;
        check_number(type, first_ + r, col, merged[static_cast<size_t>(r * cols_ + col)]);
      }
    }
  }
  if (scale_ || base_.weights().changed(name_)) check_finite(name_, merged);
}

// A sum of n terms in fp32 is off by at most n of its roundings of their sizes.
void MergedTensor::check_number(StoredType type, int64_t row, int64_t col, double merged) const {
  const TypeRounding rounding = rounding_of(type);
  const double base = base_rows_[static_cast<size_t>((row - first_) * cols_ + col)];
  double sum = 0, size = std::abs(base);
  for (int64_t k = 0; k < b_.cols; ++k) {
    const double term =
        *scale_ * b_.values[static_cast<size_t>(row * b_.cols + k)] * a_.values[static_cast<size_t>(k * cols_ + col)];
    sum += term, size += std::abs(term);
  }
  const double expected = base + sum;
  if (std::abs(expected) > rounding.largest) {
    fail(Fault::bad_data,
         "{}: base and adapter together are {:.3g} in row {}, column {}, more than the base's number type can hold; "
         "nothing was written",
         name_, expected, row, col);
  }
  const double allowed = 1.01 * rounding.relative * std::abs(expected) + rounding.absolute +
                         static_cast<double>(b_.cols + 4) * 0x1p-24 * size;
  if (std::abs(merged - expected) <= allowed) return;
  fail(Fault::corruption,
       "{}: the merged weight is {:.9g} in row {}, column {}, where base and adapter together are {:.9g}; nothing was "
       "written. Export again; if it stays, this machine computes or stores wrongly",
       name_, merged, row, col, expected);
}

MergedTensor MergedRows::tensor(const std::string& name) {
  const StoredType type = base_.weights().plain_dtype(name);
  if (!can_convert(type)) {
    fail(Fault::bad_data, "{} is stored as {}; merged models are written from F32, F16 and BF16", name, name_of(type));
  }
  return {name, adapter_, matcher_, base_, backend_};
}

void MergedRows::each(const std::string& name, StoredType rounding, int64_t rows_at_once, const Store& store,
                      const Seen& seen) {
  MergedTensor merged = tensor(name);
  for (int64_t row = 0; row < merged.rows(); row += rows_at_once) {
    merged.read(row, std::min(rows_at_once, merged.rows() - row));
    std::vector<float>& values = merged.sum();
    store(row, values);
    merged.check(rounding, values);
    if (seen && merged.updated()) seen(merged, values);
  }
}

}  // namespace drover
