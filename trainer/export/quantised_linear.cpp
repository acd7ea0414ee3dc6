#include "trainer/export/quantised_linear.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/error.h"
#include "kernels/base/in_order.h"
#include "kernels/base/nf4.h"
#include "model/dense_pieces.h"

namespace drover {

namespace {

void check_finite(const ParamSpec& spec, const std::vector<float>& values, int64_t first_row) {
  const auto wrong = std::ranges::find_if(values, [](float value) { return !std::isfinite(value); });
  if (wrong == values.end()) return;
  const int64_t at = wrong - values.begin();
  fail(Fault::bad_data, "{} holds {} in row {}, column {}, which has no code; nothing was written", spec.name, *wrong,
       first_row + at / spec.cols, at % spec.cols);
}

// use(make(values, first row, rows)) of the whole tensor in pieces of whole blocks of `block` rows; `make` in threads.
template <typename Make, typename Use>
void make_in_pieces(WeightSource& source, const ParamSpec& spec, int64_t block, int threads, const Make& make,
                    const Use& use) {
  using Made = std::invoke_result_t<Make, const std::vector<float>&, int64_t, int64_t>;
  InOrder<Made> pieces(threads, use);
  const auto read = [&](int64_t row, int64_t rows) {
    pieces.add([&, row, rows, values = floats(source, spec, {row, rows}, {0, spec.cols})] {
      check_finite(spec, values, row);
      return make(values, row, rows);
    });
  };
  in_pieces({0, spec.rows}, spec.cols, block, read, kFloatsOfAThread);
  pieces.finish();
}

template <typename T>
void put_all(const QuantisedLinear::Put& put, const std::vector<T>& numbers) {
  put(numbers.data(), static_cast<int64_t>(numbers.size() * sizeof(T)));
}

class Fp8Linear : public QuantisedLinear {
 public:
  Fp8Linear(WeightSource& source, const ParamSpec& spec, int threads)
      : source_(source), spec_(spec), threads_(threads) {}

  std::vector<TensorSpec> tensors() const override {
    const auto [high, wide] = kMadeBlocks;
    return {{spec_.name, StoredType::f8_e4m3, {spec_.rows, spec_.cols}},
            {spec_.name + "_scale_inv",
             StoredType::f32,
             {blocks_touched(0, spec_.rows, high), blocks_touched(0, spec_.cols, wide)}}};
  }

  void write(const std::string& tensor, const Put& put) override {
    struct Made {
      Fp8Slice slice;
      Rows rows;
    };
    const bool codes = tensor == spec_.name;
    const auto make = [&](const std::vector<float>& values, int64_t row, int64_t rows) {
      Made made{make_fp8(values, row, rows, 0, spec_.cols), {}};
      if (codes) made.rows = rows_of(made.slice, values);
      return made;
    };
    make_in_pieces(source_, spec_, kMadeBlocks.rows, threads_, make, [&](const Made& made) {
      if (!codes) return put_all(put, made.slice.scales);
      put_all(put, made.slice.codes);
      wrote(made.rows);
    });
  }

 private:
  WeightSource& source_;
  const ParamSpec& spec_;
  int threads_;
};

// As bitsandbytes packs it. The offset is spelled so that all states of one weight are equally long, as files name
// sizes before anything is computed.
std::string nf4_state(const ParamSpec& spec, StoredType type, float offset) {
  const char* dtype = type == StoredType::bf16 ? "bfloat16" : type == StoredType::f16 ? "float16" : "float32";
  return fmt::format(
      R"({{"quant_type": "nf4", "blocksize": {}, "dtype": "{}", "shape": [{}, {}], "nested_blocksize": {}, )"
      R"("nested_dtype": "float32", "nested_offset": {:.17e}}})",
      kNf4Block, dtype, spec.rows, spec.cols, kNf4NestedBlock, static_cast<double>(offset));
}

class Nf4Linear : public QuantisedLinear {
 public:
  Nf4Linear(WeightSource& source, const ParamSpec& spec, StoredType type, int threads)
      : source_(source), spec_(spec), type_(type), threads_(threads) {
    require(can_convert(type), "values are rounded to f32, f16 or bf16");
  }

  std::vector<TensorSpec> tensors() const override {
    const int64_t blocks = spec_.rows * (spec_.cols / kNf4Block);
    return {{spec_.name, StoredType::u8, {spec_.rows * spec_.cols / 2, 1}},
            {spec_.name + kAbsmax, StoredType::u8, {blocks}},
            {spec_.name + kState, StoredType::u8, {static_cast<int64_t>(nf4_state(spec_, type_, 0).size())}},
            {spec_.name + kMap, StoredType::f32, {static_cast<int64_t>(kNf4Levels.size())}},
            {spec_.name + kNested, StoredType::f32, {(blocks + kNf4NestedBlock - 1) / kNf4NestedBlock}},
            {spec_.name + kNestedMap, StoredType::f32, {kNf4AbsmaxLevels}}};
  }

  void write(const std::string& tensor, const Put& put) override {
    const std::string part = tensor.substr(spec_.name.size());
    if (part.empty()) return write_codes(put);
    if (part == kMap) return put(kNf4Levels.data(), sizeof kNf4Levels);
    if (part == kNestedMap) return put(nf4_absmax_levels().data(), sizeof nf4_absmax_levels());
    if (part == kNested) {
      const Nf4Scales scales = nf4_scales(source_, spec_, threads_);
      return put(scales.nested().data(), static_cast<int64_t>(scales.nested().size_bytes()));
    }
    require(offset_.has_value(), "the codes are written before what is made with them");
    if (part == kState) {
      const std::string state = nf4_state(spec_, type_, *offset_);
      return put(state.data(), static_cast<int64_t>(state.size()));
    }
    require(part == kAbsmax, "a tensor of the linear");
    put_all(put, absmax_codes_);
    absmax_codes_ = {};
  }

 private:
  static constexpr const char *kAbsmax = ".absmax", *kMap = ".quant_map", *kNested = ".nested_absmax",
                              *kNestedMap = ".nested_quant_map", *kState = ".quant_state.bitsandbytes__nf4";

  void write_codes(const Put& put) {
    struct Made {
      Nf4Slice slice;
      Rows rows;
    };
    const Nf4Scales scales = nf4_scales(source_, spec_, threads_);
    offset_ = scales.offset();
    const auto make = [&](const std::vector<float>& values, int64_t row, int64_t rows) {
      Made made{scales.make(values, row, rows, 0, spec_.cols), {}};
      made.slice.rounding = type_ == StoredType::bf16  ? Rounding::bf16
                            : type_ == StoredType::f16 ? Rounding::f16
                                                       : Rounding::none;
      made.rows = rows_of(made.slice, values);
      return made;
    };
    make_in_pieces(source_, spec_, 1, threads_, make, [&](const Made& made) {
      put_all(put, made.slice.codes);
      absmax_codes_.insert(absmax_codes_.end(), made.slice.absmax_codes.begin(), made.slice.absmax_codes.end());
      wrote(made.rows);
    });
  }

  WeightSource& source_;
  const ParamSpec& spec_;
  StoredType type_;
  int threads_;
  std::optional<float> offset_;
  std::vector<uint8_t> absmax_codes_;  // from the codes until they are written
};

}  // namespace

std::unique_ptr<QuantisedLinear> fp8_linear(WeightSource& source, const ParamSpec& spec, int threads) {
  return std::make_unique<Fp8Linear>(source, spec, threads);
}

std::unique_ptr<QuantisedLinear> nf4_linear(WeightSource& source, const ParamSpec& spec, StoredType type, int threads) {
  return std::make_unique<Nf4Linear>(source, spec, type, threads);
}

}  // namespace drover
