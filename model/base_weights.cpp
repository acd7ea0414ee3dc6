#include "model/base_weights.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "model/weight_table.h"

namespace drover {

namespace {

constexpr const char *kHead = "lm_head.weight", *kEmbedding = "model.embed_tokens.weight";
constexpr const char *kEmbeddingA = "model.embed_tokens.lora_A", *kEmbeddingB = "model.embed_tokens.lora_B";

std::string module_of(const std::string& name) { return name.substr(0, name.rfind('.')); }

}  // namespace

BaseWeights::BaseWeights(ModelDirectory& directory) : directory_(&directory), config_(directory.config()) {}

BaseWeights::BaseWeights(ModelDirectory& directory, const AdapterFile& adapter)
    : directory_(&directory), adapter_(adapter), config_(directory.config()) {
  const AdapterMatcher matcher(adapter.config());
  saves_embedding_ = matcher.saved(kEmbeddingModule);
  if (adapter.has(kEmbedding)) config_.vocab = adapter.shapes().at(kEmbedding).first;
  if (adapter.has(kHead) || adapter.has(kEmbeddingA) || (adapter.has(kEmbedding) && saves_embedding_))
    config_.tied_head = false;
  check_weights();
  if (adapter.has(kEmbeddingA))
    factors_ = {adapter.read(kEmbeddingA), adapter.read(kEmbeddingB), matcher.match(kEmbeddingModule)->scale};
}

void BaseWeights::check_weights() const {
  const std::string where = adapter_->directory().string();
  const AdapterMatcher matcher(adapter_->config());
  std::vector<ParamSpec> table = weight_table(config_);
  if (config_.tied_head) table.push_back({.name = kHead, .rows = config_.vocab, .cols = config_.hidden});
  const auto named = [&](const std::string& name) {
    return std::ranges::find(table, name, &ParamSpec::name) != table.end();
  };
  for (const std::string& name : adapter_->weights()) {
    if (!named(name)) fail(Fault::bad_data, "{}: the model has no {} that the adapter could replace", where, name);
  }
  for (const ParamSpec& spec : table) {
    if (matcher.saved(module_of(spec.name)) && !adapter_->has(spec.name))
      fail(Fault::bad_data, "{}: modules_to_save means {}, which the adapter does not hold", where, spec.name);
    if (!adapter_->has(spec.name)) {
      const bool sized = spec.name == kHead && config_.vocab != directory_->config().vocab && !config_.tied_head;
      if (!sized) continue;
      fail(Fault::bad_data,
           "{}: its embedding has {} tokens and the model's head {}; save the adapter with both (PEFT's "
           "save_embedding_layers=True)",
           where, config_.vocab, directory_->config().vocab);
    }
    const auto [rows, cols] = adapter_->shapes().at(spec.name);
    if (std::pair(rows, cols) == std::pair(spec.rows, spec.cols)) continue;
    fail(Fault::bad_data, "{}: {} is [{}, {}], the model needs [{}, {}]", where, spec.name, rows, cols, spec.rows,
         spec.cols);
  }
}

// A tied head is read from where the embedding stands, without what an adapter adds to that.
std::string BaseWeights::source_of(const std::string& name) const {
  if (name != kHead || !directory_->config().tied_head || (adapter_ && adapter_->has(kHead))) return name;
  return kEmbedding;
}

bool BaseWeights::changed(const std::string& name) const {
  if (!adapter_) return false;
  if (name == kEmbedding && factors_) return true;
  const std::string source = source_of(name);
  return adapter_->has(source) && !(name == kHead && source == kEmbedding && saves_embedding_);
}

// Where the directory's own tensor stands, or the embedding's, which its head is tied to.
std::string BaseWeights::stored_as(const std::string& name) const {
  return name == kHead && directory_->config().tied_head ? kEmbedding : name;
}

StoredType BaseWeights::dtype(const std::string& name) { return directory_->dtype(stored_as(name)); }
StoredType BaseWeights::plain_dtype(const std::string& name) { return directory_->plain_dtype(stored_as(name)); }

std::vector<int64_t> BaseWeights::shape(const std::string& name) {
  if (name == kHead || name == kEmbedding) return {config_.vocab, config_.hidden};
  return directory_->shape(name);
}

std::optional<StoredScaling> BaseWeights::scaling(const std::string& name) {
  return changed(name) ? std::nullopt : directory_->scaling(source_of(name));
}

Fp8Slice BaseWeights::read_fp8(const std::string& name, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  require(!changed(name), "what an adapter changes is not read as it is stored");
  return directory_->read_fp8(source_of(name), row, rows, col, cols);
}

Nf4Slice BaseWeights::read_nf4(const std::string& name, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  require(!changed(name), "what an adapter changes is not read as it is stored");
  return directory_->read_nf4(source_of(name), row, rows, col, cols);
}

void BaseWeights::read(const std::string& name, int64_t row, int64_t rows, int64_t col, int64_t cols, DType to,
                       void* out) {
  const std::string source = source_of(name);
  const bool of_adapter = changed(name) && adapter_->has(source);
  const auto plain = [&](int64_t first, int64_t count, DType type, void* values) {
    if (of_adapter) return adapter_->read(source, first, count, col, cols, type, values);
    directory_->read(source, first, count, col, cols, type, values);
  };
  if (name != kEmbedding || !factors_) return plain(row, rows, to, out);

  const auto& [a, b, scale] = *factors_;
  const int64_t r = a.rows, bytes = cols * size_of(to);
  std::vector<float> values(static_cast<size_t>(cols));
  for (int64_t i = 0; i < rows; ++i) {
    plain(row + i, 1, DType::f32, values.data());
    for (int64_t j = 0; j < cols; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < r; ++k) {
        sum += static_cast<double>(a.values[static_cast<size_t>(k * a.cols + row + i)]) *
               static_cast<double>(b.values[static_cast<size_t>((col + j) * r + k)]);
      }
      float& value = values[static_cast<size_t>(j)];
      value = static_cast<float>(static_cast<double>(value) + scale * sum);
    }
    convert(StoredType::f32, reinterpret_cast<const std::byte*>(values.data()), cols, to,
            static_cast<char*>(out) + i * bytes);
  }
}

void BaseWeights::read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) {
  read(spec.name, row, to.rows, col, to.cols, to.dtype, to.data);
}

ModelConfig adapted_config(const fs::path& model, const std::optional<fs::path>& adapter) {
  ModelDirectory directory(model);
  return adapter ? BaseWeights(directory, AdapterFile(*adapter)).config() : directory.config();
}

bool keeps_base(const AdapterFile& adapter, ModelDirectory& base) {
  constexpr int64_t kRowsAtOnce = 1024;
  if (adapter.has(kEmbeddingA)) return false;
  std::vector<float> ours, theirs;
  for (const std::string& name : adapter.weights()) {
    const auto [rows, cols] = adapter.shapes().at(name);
    const std::string source = name == kHead && base.config().tied_head ? kEmbedding : name;
    if (!base.has(source)) return false;
    const std::vector<int64_t> shape = base.shape(source);
    if (shape.front() != rows || (shape.size() > 1 ? shape[1] : 1) != cols) return false;
    for (int64_t row = 0; row < rows; row += kRowsAtOnce) {
      const int64_t count = std::min(kRowsAtOnce, rows - row);
      ours.resize(static_cast<size_t>(count * cols));
      theirs.resize(ours.size());
      base.read(source, row, count, 0, cols, DType::f32, ours.data());
      adapter.read(name, row, count, 0, cols, DType::f32, theirs.data());
      if (ours != theirs) return false;
    }
  }
  return true;
}

}  // namespace drover
