// The weights of a merged model in the quantised format of its base.
#include <algorithm>
#include <map>

#include "kernels/base/error.h"
#include "model/files/stored_formats.h"
#include "trainer/export/merge_part.h"

namespace drover {

namespace {

// The tensors of a model directory as they are stored.
class StoredTensors {
 public:
  explicit StoredTensors(const ModelDirectory& model) {
    for (const std::string& name : model.files()) {
      files_.push_back(std::make_unique<SafetensorsFile>(model.path() / name));
      for (const StoredTensor& tensor : files_.back()->tensors()) placed_[tensor.name] = {&tensor, files_.back().get()};
    }
  }
  TensorSpec spec(const std::string& name) const {
    const StoredTensor& tensor = *placed_.at(name).tensor;
    return {name, tensor.dtype, tensor.shape};
  }
  void copy(const std::string& name, const WeightPart::Put& put) const {
    const auto& [tensor, file] = placed_.at(name);
    file->read_in_pieces(
        *tensor, [&](std::span<const std::byte> bytes) { put(bytes.data(), static_cast<int64_t>(bytes.size())); });
  }

 private:
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, PlacedTensor> placed_;
};

class CopiedPart : public WeightPart {
 public:
  CopiedPart(std::vector<std::string> names, std::shared_ptr<const StoredTensors> stored)
      : names_(std::move(names)), stored_(std::move(stored)) {}

  std::vector<TensorSpec> tensors() const override {
    std::vector<TensorSpec> specs;
    for (const std::string& name : names_) specs.push_back(stored_->spec(name));
    return specs;
  }
  void write(const std::string& tensor, const Put& put) override { stored_->copy(tensor, put); }

 private:
  std::vector<std::string> names_;
  std::shared_ptr<const StoredTensors> stored_;
};

// W + scale·B·A of one linear, and its last piece.
class MergedSource : public WeightSource {
 public:
  explicit MergedSource(MergedRows& rows) : rows_(rows) {}

  void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) override {
    require(col == 0 && to.cols == spec.cols && to.dtype == DType::f32, "whole rows are quantised, of fp32");
    if (!tensor_) tensor_.emplace(rows_.tensor(spec.name));
    tensor_->read(row, to.rows);
    tensor_->check(StoredType::f32, tensor_->sum());
    std::ranges::copy(tensor_->sum(), static_cast<float*>(to.data));
  }
  const MergedTensor& last() const { return *tensor_; }
  void release() { tensor_.reset(); }

 private:
  MergedRows& rows_;
  std::optional<MergedTensor> tensor_;
};

class QuantisedPart : public MergePart {
 public:
  QuantisedPart(const ParamSpec& spec, const StoredScaling& scaling, StoredType type, MergedRows& rows)
      : spec_(spec), source_(rows) {
    linear_ = scaling.kind == StoredScaling::Kind::fp8 ? fp8_linear(source_, spec_) : nf4_linear(source_, spec_, type);
    linear_->on_written = [this](const std::vector<float>& values) { add(source_.last(), values, spec_.name); };
  }

  std::vector<TensorSpec> tensors() const override { return linear_->tensors(); }
  void write(const std::string& tensor, const Put& put) override {
    linear_->write(tensor, put);
    source_.release();
  }

 private:
  ParamSpec spec_;
  MergedSource source_;
  std::unique_ptr<QuantisedLinear> linear_;
};

constexpr const char* kAdvice =
    "leave --keep-format out, which writes 16-bit numbers, and quantise these: drover quantize";

void check_layout(const ParamSpec& spec, const StoredScaling& scaling, const std::string& method) {
  const bool fp8 = scaling.kind == StoredScaling::Kind::fp8;
  if (fp8 ? method == "fp8" && scaling.blocks == kMadeBlocks : scaling.nested) return;
  fail(Fault::usage,
       "--keep-format writes fp8 in blocks of {} × {} (transformers' FineGrainedFP8) and NF4 with double quantisation; "
       "{} is stored in another layout ({}, {}): {}",
       kMadeBlocks.rows, kMadeBlocks.columns, spec.name, method,
       fp8 ? fmt::format("blocks of {} × {}, where 0 is all", scaling.blocks.rows, scaling.blocks.columns)
           : "NF4 without it",
       kAdvice);
}

}  // namespace

WeightParts kept_parts(const std::vector<ParamSpec>& table, const AdapterConfig& adapter, BaseWeights& base,
                       MergedRows& rows) {
  ModelDirectory& model = base.directory();
  if (!model.is_quantised()) {
    fail(Fault::usage,
         "--keep-format is of a base whose files are in fp8 or NF4, and those of {} hold plain numbers, whose types a "
         "merged model keeps anyway: leave it out; drover quantize makes fp8 or NF4 of the merged model",
         model.path().string());
  }
  const StoredFormats formats = stored_formats(model);
  std::map<std::string, std::vector<std::string>> belonging;
  for (const auto& [tensor, weight] : formats.part_of) belonging[weight].push_back(tensor);
  const auto stored = std::make_shared<const StoredTensors>(model);
  const AdapterMatcher matcher(adapter);
  WeightParts parts;
  for (const ParamSpec& spec : table) {
    const std::string module = spec.name.substr(0, spec.name.rfind('.'));
    const std::optional<StoredScaling> scaling = base.scaling(spec.name);
    if (base.changed(spec.name) && model.has(spec.name) && model.scaling(spec.name)) {
      fail(Fault::usage, "--keep-format: the adapter brings a {} of its own, in plain numbers: {}", spec.name, kAdvice);
    }
    if (!scaling) {
      parts.push_back(plain_part(spec, base, rows));
    } else if (!matcher.match(module)) {
      std::vector<std::string> names = belonging[spec.name];
      names.push_back(spec.name);
      parts.push_back(std::make_unique<CopiedPart>(std::move(names), stored));
    } else {
      check_layout(spec, *scaling, formats.method);
      parts.push_back(std::make_unique<QuantisedPart>(spec, *scaling, base.plain_dtype(spec.name), rows));
    }
  }
  return parts;
}

}  // namespace drover
