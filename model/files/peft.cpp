#include "model/files/peft.h"

#include <array>
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
constexpr std::string_view kSuffix = ".weight", kBaseLayer = ".base_layer";
constexpr std::array<std::string_view, 2> kEmbeddingFactors = {".lora_embedding_A", ".lora_embedding_B"};

struct AdapterTensor {
  std::string name;  // "model.layers.0.self_attn.q_proj.lora_A", "lm_head.weight"
  std::string path;  // of its module
  std::optional<Factor> factor;
};

// PEFT's name for a tensor of ours.
std::string stored_name(const AdapterMatcher& matcher, const std::string& name) {
  const std::string path = name.substr(0, name.rfind('.'));
  const std::optional<Factor> factor = factor_of(name);
  if (!factor) {
    const bool base_layer = matcher.match(path).has_value() && !matcher.saved(path);
    return fmt::format("{}{}{}{}", kPrefix, path, base_layer ? kBaseLayer : "", kSuffix);
  }
  if (path == kEmbeddingModule)
    return fmt::format("{}{}{}", kPrefix, path, kEmbeddingFactors[static_cast<size_t>(*factor)]);
  return fmt::format("{}{}{}", kPrefix, name, kSuffix);
}

AdapterTensor adapter_tensor(const std::string& stored, const std::string& where) {
  std::string_view rest = stored;
  const bool framed = rest.starts_with(kPrefix);
  if (framed) rest = rest.substr(kPrefix.size());
  for (const FactorName& factor : kFactors) {
    const std::string_view suffix = kEmbeddingFactors[static_cast<size_t>(factor.factor)];
    if (framed && rest == std::string(kEmbeddingModule) + std::string(suffix))
      return {std::string(kEmbeddingModule) + std::string(factor.suffix), kEmbeddingModule, factor.factor};
  }
  if (!framed || !rest.ends_with(kSuffix) || rest.size() == kSuffix.size()) {
    fail(Fault::bad_data,
         "{}: the tensor {} is not supported; allowed are base_model.model.<module>.lora_A.weight and .lora_B.weight, "
         "and .weight of modules_to_save",
         where, clipped(stored));
  }
  rest = rest.substr(0, rest.size() - kSuffix.size());
  if (const std::optional<Factor> factor = factor_of(rest))
    return {std::string(rest), std::string(rest.substr(0, rest.size() - suffix_of(*factor).size())), factor};
  if (rest.ends_with(kBaseLayer)) rest = rest.substr(0, rest.size() - kBaseLayer.size());
  return {std::string(rest) + std::string(kSuffix), std::string(rest), std::nullopt};
}

// Which side of a factor is the rank.
std::pair<int64_t, int64_t> shape_of(Factor factor, int64_t r, int64_t out, int64_t in) {
  return factor == Factor::a ? std::pair(r, in) : std::pair(out, r);
}

void check_matrix(const StoredTensor& tensor, Factor factor, int64_t r, const std::string& where) {
  if (tensor.shape.size() != 2 || tensor.rows() == 0 || tensor.cols() == 0) {
    fail(Fault::bad_data, "{}: {} is {}; a factor is a matrix", where, clipped(tensor.name), shape_text(tensor.shape));
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
  const std::string where = (directory / kConfig).string();
  config_ = parse_adapter_config(read_config_text(directory), where);
  file_ = std::make_shared<SafetensorsFile>(directory / kWeights);
  // What PEFT ties it saves, and says so by ensure_weight_tying only.
  auto* names = std::get_if<AdapterConfig::Names>(&config_.target_modules);
  const bool tied_factors = file_->find(fmt::format("{}{}.lora_A{}", kPrefix, kHeadModule, kSuffix)) != nullptr;
  if (config_.ensure_weight_tying && tied_factors && names != nullptr && config_.rank_pattern.empty() &&
      config_.alpha_pattern.empty() && !AdapterMatcher(config_, where).match(kHeadModule)) {
    names->emplace_back(kHeadModule);
  }
  const AdapterMatcher matcher(config_, where);
  for (const StoredTensor& tensor : file_->tensors()) take(tensor, matcher);
  if (shapes_.empty()) fail(Fault::bad_data, "{}: no adapter weights in it", file_->path().string());
  check_complete();
}

void AdapterFile::take(const StoredTensor& tensor, const AdapterMatcher& matcher) {
  const std::string where = file_->path().string();
  const AdapterTensor adapter = adapter_tensor(tensor.name, where);
  const auto target = matcher.match(adapter.path);
  const bool vocabulary = adapter.path == kEmbeddingModule || adapter.path == kHeadModule;
  if (adapter.factor ? !target : !matcher.saved(adapter.path) && !vocabulary) {
    fail(Fault::bad_data, "{}: the tensor {} belongs to a module that {} of {} does not mean", where,
         clipped(tensor.name), adapter.factor ? "target_modules" : "modules_to_save", kConfig);
  }
  if (!can_convert(tensor.dtype)) {
    fail(Fault::bad_data, "{}: {} is stored as {}; allowed are F32, F16 and BF16", where, clipped(tensor.name),
         name_of(tensor.dtype));
  }
  if (adapter.factor) check_matrix(tensor, *adapter.factor, target->r, where);
  shapes_[adapter.name] = {tensor.rows(), tensor.cols()};
  if (!stored_.emplace(adapter.name, tensor.name).second) {
    fail(Fault::bad_data, "{}: {} and {} are the same weight; keep one of them", where,
         clipped(stored_.at(adapter.name)), clipped(tensor.name));
  }
}

void AdapterFile::check_complete() const {
  for (const auto& [name, stored] : stored_) {
    if (!factor_of(name)) continue;
    const std::string path = name.substr(0, name.rfind('.'));
    for (const FactorName& other : kFactors) {
      if (has(path + std::string(other.suffix))) continue;
      fail(Fault::bad_data, "{}: {} has no {} next to it", file_->path().string(), stored, other.suffix.substr(1));
    }
  }
}

std::vector<std::string> AdapterFile::weights() const {
  std::vector<std::string> names;
  for (const auto& [name, stored] : stored_) {
    if (!factor_of(name)) names.push_back(name);
  }
  return names;
}

AdapterMatrix AdapterFile::read(const std::string& name) const {
  const auto [rows, cols] = shapes_.at(name);
  AdapterMatrix matrix{rows, cols, std::vector<float>(static_cast<size_t>(rows * cols))};
  read(name, 0, rows, 0, cols, DType::f32, matrix.values.data());
  for (float value : matrix.values) {
    if (!std::isfinite(value))
      fail(Fault::bad_data, "{}: {} holds {}; such an adapter cannot be used", file_->path().string(),
           clipped(stored_.at(name)), value);
  }
  return matrix;
}

void AdapterFile::read(const std::string& name, int64_t row, int64_t rows, int64_t col, int64_t cols, DType to,
                       void* out) const {
  const StoredTensor* tensor = file_->find(stored_.at(name));
  require(row >= 0 && row + rows <= tensor->rows() && col >= 0 && col + cols <= tensor->cols(),
          "a slice lies inside its tensor");
  const int64_t number = size_of(tensor->dtype), row_bytes = tensor->cols() * number;
  const RowBytes part{static_cast<size_t>(row_bytes), static_cast<size_t>(col * number),
                      static_cast<size_t>(cols * number)};
  std::vector<std::byte> stored(static_cast<size_t>(rows) * part.count);
  file_->read_rows(*tensor, static_cast<size_t>(row), static_cast<size_t>(rows), part, stored.data());
  convert(tensor->dtype, stored.data(), rows * cols, to, out);
}

Adapter read_adapter(const fs::path& directory) {
  const AdapterFile file(directory);
  Adapter adapter{file.config(), {}};
  for (const auto& [factor, shape] : file.shapes()) adapter.matrices[factor] = file.read(factor);
  return adapter;
}

void check_adapter(const AdapterConfig& config, const FactorShapes& factors, std::span<const LinearSize> linears,
                   const std::string& where) {
  const AdapterMatcher matcher(config, where);
  std::vector<std::string> wrong;
  std::set<std::string> known;
  for (const LinearSize& linear : linears) {
    const auto target = matcher.match(linear.path);
    for (const auto& [factor, suffix] : kFactors) {
      const std::string name = fmt::format("{}{}", linear.path, suffix);
      known.insert(name);
      const auto found = factors.find(name);
      if (!target || found == factors.end()) {
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
  for (const auto& [factor, shape] : factors) {
    if (known.count(factor) == 0) wrong.push_back(factor + " belongs to no linear of the model");
  }
  if (wrong.empty()) return;
  const size_t shown = std::min<size_t>(wrong.size(), 20);
  fail(Fault::bad_data, "{}: the adapter does not fit the model ({} problems):\n  {}", where, wrong.size(),
       fmt::join(wrong.begin(), wrong.begin() + static_cast<std::ptrdiff_t>(shown), "\n  "));
}

const std::set<std::string>& adapter_files() {
  static const std::set<std::string> names = {kConfig, kWeights, "README.md", "comparison.json", "logprobs.json"};
  return names;
}

void write_adapter_files(const fs::path& directory, const AdapterConfig& config, const FactorShapes& shapes,
                         const FactorValues& values, DType dtype) {
  const AdapterMatcher matcher(config);
  std::map<std::string, std::string> ours;  // by stored name
  std::vector<TensorSpec> specs;
  for (const auto& [name, shape] : shapes) {
    const std::string stored = stored_name(matcher, name);
    const bool vector = !factor_of(name) && shape.second == 1;  // a norm's weight
    ours[stored] = name;
    specs.push_back({stored, stored_type(dtype),
                     vector ? std::vector<int64_t>{shape.first} : std::vector<int64_t>{shape.first, shape.second}});
  }
  SafetensorsWriter writer(directory / kWeights, std::move(specs));
  std::vector<char> converted;
  for (const TensorSpec& spec : writer.order()) {
    const std::string& name = ours.at(spec.name);
    const AdapterMatrix matrix = values(name);
    require(std::pair(matrix.rows, matrix.cols) == shapes.at(name) &&
                static_cast<int64_t>(matrix.values.size()) == matrix.rows * matrix.cols,
            "a tensor has its shape's values");
    converted.resize(static_cast<size_t>(spec.bytes()));
    convert(StoredType::f32, reinterpret_cast<const std::byte*>(matrix.values.data()), matrix.rows * matrix.cols, dtype,
            converted.data());
    writer.write(spec.name, converted.data(), spec.bytes());
  }
  writer.commit();
  write_text(directory / kConfig, write_adapter_config(config));
}

void write_adapter(const fs::path& directory, const AdapterConfig& config, const FactorShapes& shapes,
                   const FactorValues& values, DType dtype, const MoreFiles& more) {
  std::set<std::string> replaceable = more.names;
  replaceable.insert(adapter_files().begin(), adapter_files().end());
  StagedDirectory staged(directory, replaceable);
  write_adapter_files(staged.path(), config, shapes, values, dtype);
  if (more.write) more.write(staged.path());
  staged.commit();
}

}  // namespace drover
