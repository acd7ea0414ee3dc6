#include "trainer/export/merge.h"

#include <cmath>
#include <cstring>
#include <map>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/json.h"
#include "model/files/factor.h"
#include "model/files/merged_writer.h"
#include "model/files/staged_directory.h"
#include "model/weight_table.h"
#include "trainer/setup/model_check.h"

namespace drover {

namespace {

constexpr int64_t kRowsAtOnce = 1024, kSamplesOfARow = 4;

// How far one rounding to the type moves a number: ulp/2 relative to it, and of the smallest that the type has.
struct Rounding {
  double relative = 0, absolute = 0, largest = 0;
};
Rounding rounding_of(StoredType type) {
  if (type == StoredType::bf16) return {0x1p-8, 0, 3.3e38};
  if (type == StoredType::f16) return {0x1p-11, 0x1p-25, 65504};
  return {0x1p-24, 0, 3.4e38};
}

// `values` rounded to the type, in its bytes; and as the fp32 numbers that a reader gets.
std::vector<std::byte> stored(StoredType type, std::vector<float>& values) {
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

using Hashes = std::map<std::string, std::vector<uint64_t>>;  // of a tensor's rows, kRowsAtOnce at a time

uint64_t hash_of(const std::vector<float>& values) { return xxh3(values.data(), values.size() * sizeof(float)); }

class Merger {
 public:
  Merger(const AdapterSource& adapter, BaseWeights& base, Backend& backend)
      : adapter_(adapter), matcher_(adapter.config), base_(base), backend_(backend) {}

  void write(const TensorSpec& tensor, MergedWriter& writer) {
    if (!can_convert(tensor.dtype)) {
      fail(Fault::bad_data, "{} is stored as {}; merged models are written from F32, F16 and BF16", tensor.name,
           name_of(tensor.dtype));
    }
    const std::string path = tensor.name.substr(0, tensor.name.rfind('.'));    // without ".weight"
    const bool linear = tensor.shape.size() == 2 && path != kEmbeddingModule;  // BaseWeights adds the embedding's
    const auto target = linear ? matcher_.match(path) : std::nullopt;
    AdapterMatrix a, b;
    if (target)
      a = adapter_.factor(path + std::string(suffix_of(Factor::a))),
      b = adapter_.factor(path + std::string(suffix_of(Factor::b)));
    write_rows(tensor, target ? target->scale : 0, a, b, writer);
  }

  void compare(ModelDirectory& back) const {
    std::vector<float> values;
    for (const ParamSpec& spec : weight_table(back.config())) {
      const std::vector<uint64_t>& hashes = hashes_.at(spec.name);
      for (int64_t row = 0, part = 0; row < spec.rows; row += kRowsAtOnce, ++part) {
        const int64_t count = std::min(kRowsAtOnce, spec.rows - row);
        values.resize(static_cast<size_t>(count * spec.cols));
        back.read(spec.name, row, count, 0, spec.cols, DType::f32, values.data());
        if (hash_of(values) != hashes.at(static_cast<size_t>(part)))
          fail(Fault::corruption, "read back, {} is not what was written; nothing was written", spec.name);
      }
    }
  }

 private:
  void write_rows(const TensorSpec& tensor, double scale, AdapterMatrix& a, AdapterMatrix& b, MergedWriter& writer) {
    const int64_t rows = tensor.shape[0], cols = tensor.shape.size() > 1 ? tensor.shape[1] : 1;
    Samples samples(tensor.name, tensor.dtype, scale, a, b);
    std::vector<float> w;
    for (int64_t row = 0; row < rows; row += kRowsAtOnce) {
      const int64_t count = std::min(kRowsAtOnce, rows - row);
      w.resize(static_cast<size_t>(count * cols));
      base_.read(tensor.name, row, count, 0, cols, DType::f32, w.data());
      if (a.rows > 0) {
        samples.of_base(w, row, count, cols);
        backend_.gemm(Trans::no, Trans::no, static_cast<float>(scale),
                      matrix(b.values.data() + row * b.cols, count, b.cols), matrix_of(a.values, a.rows, a.cols), 1,
                      matrix_of(w, count, cols));
      }
      const std::vector<std::byte> bytes = stored(tensor.dtype, w);
      if (a.rows > 0) samples.compare(w);
      if (a.rows > 0 || base_.changed(tensor.name)) check_finite(tensor.name, w);
      hashes_[tensor.name].push_back(hash_of(w));
      writer.write(tensor.name, bytes.data(), static_cast<int64_t>(bytes.size()));
    }
  }

  static void check_finite(const std::string& name, const std::vector<float>& values) {
    for (const float v : values) {
      if (!std::isfinite(v)) {
        fail(Fault::bad_data,
             "{}: base and adapter together are more than the base's number type can hold; nothing was written", name);
      }
    }
  }

  const AdapterSource& adapter_;
  AdapterMatcher matcher_;
  BaseWeights& base_;
  Backend& backend_;
  Hashes hashes_;
};

// The base's config.json, with what the adapter changes of it.
std::string merged_config(const fs::path& file, const ModelConfig& base, const ModelConfig& merged) {
  const std::string text = read_text(file);
  if (base == merged) return text;
  OrderedJson json = parse_ordered_json(text, file.string());
  json["tie_word_embeddings"] = merged.tied_head;
  json["vocab_size"] = merged.vocab;
  return json.dump(2) + "\n";
}

}  // namespace

void merge(const AdapterSource& adapter, BaseWeights& base, const fs::path& out, Backend& backend,
           const MoreFiles& more, const std::function<void(const fs::path& staged)>& check) {
  check_weights(base.directory());
  ModelConfig config = base.config();
  if (AdapterMatcher(adapter.config).match(kHeadModule)) config.tied_head = false;
  StagedDirectory staged(out);
  std::vector<TensorSpec> tensors;
  for (const ParamSpec& spec : weight_table(config))
    tensors.push_back({spec.name, base.dtype(spec.name), base.shape(spec.name)});
  MergedWriter writer(staged.path(), tensors);
  Merger merger(adapter, base, backend);
  for (const TensorSpec& tensor : writer.order()) merger.write(tensor, writer);
  writer.commit();
  write_text(staged.path() / "config.json",
             merged_config(base.directory().path() / "config.json", base.directory().config(), config));
  if (more.write) more.write(staged.path());

  ModelDirectory back(staged.path());
  check_weights(back);
  merger.compare(back);
  check(staged.path());
  staged.commit();
}

}  // namespace drover
