#include "model/files/peft.h"

#include <cmath>
#include <set>

#include "kernels/base/json.h"
#include "model/files/factor.h"
#include "model/files/safetensors.h"
#include "model/files/safetensors_writer.h"
#include "model/files/staged_directory.h"

namespace drover {

namespace {

constexpr const char* kConfig = "adapter_config.json";
constexpr const char* kWeights = "adapter_model.safetensors";
constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kSuffix = ".weight";

struct StoredFactor {
  std::string name;  // "model.layers.0.self_attn.q_proj.lora_A"
  std::string path;
  Factor factor = Factor::a;
};

StoredFactor stored_factor(const std::string& tensor, const std::string& where) {
  std::string_view rest = tensor;
  const bool framed =
      rest.size() > kPrefix.size() + kSuffix.size() && rest.starts_with(kPrefix) && rest.ends_with(kSuffix);
  if (framed) rest = rest.substr(kPrefix.size(), rest.size() - kPrefix.size() - kSuffix.size());
  const std::optional<Factor> factor = factor_of(rest);
  if (!framed || !factor) {
    fail(Fault::bad_data,
         "{}: the tensor {} is not supported; allowed are base_model.model.<module>.lora_A.weight and .lora_B.weight",
         where, clipped(tensor));
  }
  return {std::string(rest), std::string(rest.substr(0, rest.size() - suffix_of(*factor).size())), *factor};
}

// Which side of a factor is the rank.
std::pair<int64_t, int64_t> shape_of(Factor factor, int64_t r, int64_t out, int64_t in) {
  return factor == Factor::a ? std::pair(r, in) : std::pair(out, r);
}

void check_matrix(const StoredTensor& tensor, Factor factor, int64_t r, const std::string& where) {
  if (tensor.shape.size() != 2 || tensor.rows() == 0 || tensor.cols() == 0) {
    fail(Fault::bad_data, "{}: {} is {}; a factor is a matrix", where, clipped(tensor.name), shape_text(tensor.shape));
  }
  if (!can_convert(tensor.dtype)) {
    fail(Fault::bad_data, "{}: {} is stored as {}; allowed are F32, F16 and BF16", where, clipped(tensor.name),
         name_of(tensor.dtype));
  }
  if (shape_of(factor, r, tensor.rows(), tensor.cols()) != std::pair(tensor.rows(), tensor.cols())) {
    fail(Fault::bad_data, "{}: {} is {} but {} gives its module the rank {}", where, clipped(tensor.name),
         shape_text(tensor.shape), kConfig, r);
  }
}

std::string read_config_text(const fs::path& directory) {
  std::error_code ignored;
  if (!fs::is_directory(directory, ignored))
    fail(Fault::missing_input, "no adapter directory {}{}", directory.string(), from_here(directory));
  if (!fs::exists(directory / kConfig, ignored)) {
    fail(Fault::missing_input, "no {} in {}; an adapter is a directory as PEFT saves it", kConfig, directory.string());
  }
  if (!fs::exists(directory / kWeights, ignored)) {
    if (fs::exists(directory / "adapter_model.bin", ignored)) {
      fail(Fault::bad_data,
           "{} holds adapter_model.bin: pickles can run code and are not read; save it again with PEFT's "
           "safe_serialization=True",
           directory.string());
    }
    fail(Fault::missing_input, "no {} in {}", kWeights, directory.string());
  }
  return read_text(directory / kConfig, size_t{4} << 20);
}

}  // namespace

FactorShapes shapes_of(const AdapterMatrices& matrices) {
  FactorShapes shapes;
  for (const auto& [factor, matrix] : matrices) shapes[factor] = {matrix.rows, matrix.cols};
  return shapes;
}

AdapterFile::AdapterFile(const fs::path& directory) : directory_(directory) {
  config_ = parse_adapter_config(read_config_text(directory), (directory / kConfig).string());
  const AdapterMatcher matcher(config_, (directory / kConfig).string());
  file_ = std::make_shared<SafetensorsFile>(directory / kWeights);
  const std::string where = file_->path().string();
  for (const StoredTensor& tensor : file_->tensors()) {
    const StoredFactor stored = stored_factor(tensor.name, where);
    const auto target = matcher.match(stored.path);
    if (!target) {
      fail(Fault::bad_data, "{}: the tensor {} belongs to a module that target_modules of {} does not mean", where,
           clipped(tensor.name), kConfig);
    }
    check_matrix(tensor, stored.factor, target->r, where);
    shapes_[stored.name] = {tensor.rows(), tensor.cols()};
  }
  if (shapes_.empty()) fail(Fault::bad_data, "{}: no adapter weights in it", where);
  for (const auto& [name, shape] : shapes_) {
    const std::string path = name.substr(0, name.rfind('.'));
    for (const FactorName& other : kFactors) {
      if (shapes_.count(path + std::string(other.suffix)) != 0) continue;
      fail(Fault::bad_data, "{}: {}{}{} has no {} next to it", where, kPrefix, name, kSuffix, other.suffix.substr(1));
    }
  }
}

AdapterMatrix AdapterFile::read(const std::string& factor) const {
  const StoredTensor* tensor = file_->find(fmt::format("{}{}{}", kPrefix, factor, kSuffix));
  require(tensor != nullptr, "a factor that was listed is there");
  AdapterMatrix matrix{tensor->rows(), tensor->cols(), std::vector<float>(static_cast<size_t>(tensor->size()))};
  convert(tensor->dtype, tensor->bytes.data(), tensor->size(), DType::f32, matrix.values.data());
  file_->advise_done(tensor->offset, tensor->bytes.size());
  for (float value : matrix.values) {
    if (!std::isfinite(value))
      fail(Fault::bad_data, "{}: {} holds {}; such an adapter cannot be used", file_->path().string(),
           clipped(tensor->name), value);
  }
  return matrix;
}

Adapter read_adapter(const fs::path& directory) {
  const AdapterFile file(directory);
  Adapter adapter{file.config(), {}};
  for (const auto& [factor, shape] : file.shapes()) adapter.matrices[factor] = file.read(factor);
  return adapter;
}

void check_adapter(const AdapterConfig& config, const FactorShapes& shapes, std::span<const LinearSize> linears,
                   const std::string& where) {
  const AdapterMatcher matcher(config, where);
  std::vector<std::string> wrong;
  std::set<std::string> known;
  for (const LinearSize& linear : linears) {
    const auto target = matcher.match(linear.path);
    for (const auto& [factor, suffix] : kFactors) {
      const std::string name = fmt::format("{}{}", linear.path, suffix);
      known.insert(name);
      const auto found = shapes.find(name);
      if (!target || found == shapes.end()) {
        if (target) wrong.push_back(name + " is missing");
        continue;
      }
      const auto [rows, cols] = shape_of(factor, target->r, linear.out, linear.in);
      if (found->second != std::pair(rows, cols)) {
        wrong.push_back(fmt::format("{} is [{}, {}], the model needs [{}, {}]", name, found->second.first,
                                    found->second.second, rows, cols));
      }
    }
  }
  for (const auto& [factor, shape] : shapes) {
    if (known.count(factor) == 0) wrong.push_back(factor + " belongs to no linear of the model");
  }
  if (wrong.empty()) return;
  const size_t shown = std::min<size_t>(wrong.size(), 20);
  fail(Fault::bad_data, "{}: the adapter does not fit the model ({} problems):\n  {}", where, wrong.size(),
       fmt::join(wrong.begin(), wrong.begin() + static_cast<std::ptrdiff_t>(shown), "\n  "));
}

void write_adapter(const fs::path& directory, const AdapterConfig& config, const FactorShapes& shapes,
                   const FactorValues& values, DType dtype, const MoreFiles& more) {
  std::set<std::string> replaceable = more.names;
  replaceable.insert({kConfig, kWeights, "README.md"});
  StagedDirectory staged(directory, replaceable);
  std::vector<TensorSpec> specs;
  for (const auto& [factor, shape] : shapes)
    specs.push_back({fmt::format("{}{}{}", kPrefix, factor, kSuffix), stored_type(dtype), {shape.first, shape.second}});
  SafetensorsWriter writer(staged.path() / kWeights, std::move(specs));
  std::vector<char> converted;
  for (const TensorSpec& spec : writer.order()) {
    const std::string factor = spec.name.substr(kPrefix.size(), spec.name.size() - kPrefix.size() - kSuffix.size());
    const AdapterMatrix matrix = values(factor);
    require(std::pair(matrix.rows, matrix.cols) == shapes.at(factor) &&
                static_cast<int64_t>(matrix.values.size()) == matrix.rows * matrix.cols,
            "a factor has its shape's values");
    converted.resize(static_cast<size_t>(spec.bytes()));
    convert(StoredType::f32, reinterpret_cast<const std::byte*>(matrix.values.data()), matrix.rows * matrix.cols, dtype,
            converted.data());
    writer.write(spec.name, converted.data(), spec.bytes());
  }
  writer.commit();
  write_text(staged.path() / kConfig, write_adapter_config(config));
  if (more.write) more.write(staged.path());
  staged.commit();
}

}  // namespace drover
