#include "trainer/export/adapter_targets.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "model/files/factor.h"
#include "model/files/gguf_tensors.h"
#include "model/files/gguf_writer.h"

namespace drover {

namespace {

constexpr std::array<int64_t, 8> kVllmRanks = {8, 16, 32, 64, 128, 256, 320, 512};

std::string path_of(const std::string& factor) { return factor.substr(0, factor.rfind('.')); }

// Of linears that no pattern names.
double plain_scale(const AdapterConfig& c) {
  const double r = static_cast<double>(c.r);
  return c.alpha / (c.use_rslora ? std::sqrt(r) : r);
}

void multiply(AdapterMatrix& m, double by) {
  if (by == 1) return;
  for (float& v : m.values) v = static_cast<float>(v * by);
}

// Rows or columns of zeros behind the others.
AdapterMatrix padded(const AdapterMatrix& m, int64_t rows, int64_t cols) {
  AdapterMatrix out{rows, cols, std::vector<float>(static_cast<size_t>(rows * cols))};
  for (int64_t r = 0; r < m.rows; ++r)
    std::copy_n(m.values.begin() + r * m.cols, m.cols, out.values.begin() + r * cols);
  return out;
}

std::string llamacpp_name_of(const std::string& factor) {
  const std::string path = path_of(factor), name = gguf_linear(path);
  if (name.empty())
    fail(Fault::bad_data, "{} has no name in llama.cpp's adapters; export --merged makes a whole model", path);
  return name + (factor_of(factor) == Factor::a ? ".weight.lora_a" : ".weight.lora_b");
}

AdapterMatrix interleaved(const AdapterMatrix& m, int64_t head_dim) {
  AdapterMatrix out = m;
  for (int64_t row = 0; row < m.rows; ++row) {
    std::copy_n(m.values.begin() + row_from_gguf(row, head_dim) * m.cols, m.cols, out.values.begin() + row * m.cols);
  }
  return out;
}

// Programs that read factors of the blocks' linears only.
void check_blocks_only(const AdapterForm& adapter, const char* program) {
  for (const auto& [name, shape] : adapter.shapes) {
    if (factor_of(name) && name.find(".layers.") != std::string::npos) continue;
    fail(Fault::bad_data, "{} takes no {} in an adapter; export --merged makes a whole model", program, name);
  }
}

uint64_t hash_of(const std::vector<float>& values) { return xxh3(values.data(), values.size() * sizeof(float)); }

void check_read_back(const fs::path& file, const std::map<std::string, uint64_t>& written) {
  const GgufFile back(file);
  for (const auto& [name, hash] : written) {
    const GgufTensor* tensor = back.find(name);
    std::vector<float> values(tensor == nullptr ? 0 : static_cast<size_t>(tensor->size()));
    if (tensor != nullptr) dequantise(*tensor, 0, tensor->size(), values.data());
    if (hash_of(values) != hash)
      fail(Fault::corruption, "{}: read back, {} is not what was written", file.string(), name);
  }
}

}  // namespace

AdapterForm for_vllm(const AdapterForm& adapter) {
  check_blocks_only(adapter, "vLLM");
  int64_t largest = 0;
  std::set<std::string> names;
  for (const auto& [factor, shape] : adapter.shapes) {
    if (factor_of(factor) == Factor::a) largest = std::max(largest, shape.first);
    const std::string path = path_of(factor);
    names.insert(path.substr(path.rfind('.') + 1));
  }
  const auto rank = std::ranges::lower_bound(kVllmRanks, largest);
  if (rank == kVllmRanks.end()) {
    fail(Fault::bad_data,
         "the adapter's rank {} is more than vLLM takes, which is {}; export --merged makes a whole model", largest,
         kVllmRanks.back());
  }
  const double scale = plain_scale(adapter.config);
  AdapterForm form;
  form.config.base_model_name_or_path = adapter.config.base_model_name_or_path;
  form.config.dropout = adapter.config.dropout;
  form.config.r = *rank;
  form.config.alpha = scale * static_cast<double>(*rank);
  form.config.target_modules = AdapterConfig::Names(names.begin(), names.end());
  for (const auto& [factor, shape] : adapter.shapes) {
    const bool is_a = factor_of(factor) == Factor::a;
    form.shapes[factor] = {is_a ? *rank : shape.first, is_a ? shape.second : *rank};
  }
  form.values = [adapter, scale, shapes = form.shapes,
                 matcher = AdapterMatcher(adapter.config)](const std::string& factor) {
    AdapterMatrix m = adapter.values(factor);
    if (factor_of(factor) == Factor::b) multiply(m, matcher.match(path_of(factor))->scale / scale);
    return padded(m, shapes.at(factor).first, shapes.at(factor).second);
  };
  return form;
}

std::string loads_in(const AdapterConfig& config) {
  if (AdapterMatcher(config).match(kHeadModule))
    return "the adapter loads in PEFT; vLLM, llama.cpp and TensorRT-LLM take no lm_head in an adapter (export --merged "
           "makes a whole model)";
  int64_t largest = config.r;
  for (const auto& [pattern, r] : config.rank_pattern) largest = std::max(largest, r);
  const bool plain = config.rank_pattern.empty() && config.alpha_pattern.empty();
  const auto rank = std::ranges::lower_bound(kVllmRanks, largest);
  const std::string vllm = rank == kVllmRanks.end() ? fmt::format("not in vLLM (rank {})", largest)
                           : plain                  ? fmt::format("vLLM (--max-lora-rank {})", *rank)
                                   : fmt::format("vLLM (export --target vllm, --max-lora-rank {})", *rank);
  return fmt::format("the adapter loads in PEFT, {}, llama.cpp (export --target llamacpp), {}", vllm,
                     plain && !config.use_rslora ? fmt::format("TensorRT-LLM (max_lora_rank {})", largest)
                                                 : "and it is not known whether in TensorRT-LLM (patterns, rsLoRA)");
}

void write_for_llamacpp(const AdapterForm& adapter, const ModelConfig& model, const fs::path& file) {
  const double alpha = plain_scale(adapter.config) * static_cast<double>(adapter.config.r);
  check_blocks_only(adapter, "llama.cpp");
  const AdapterMatcher matcher(adapter.config);
  std::map<std::string, uint64_t> written;  // hashes
  GgufWriter writer(file);
  writer.text("general.type", "adapter");
  writer.text("general.architecture", "llama");
  writer.text("adapter.type", "lora");
  writer.number("adapter.lora.alpha", static_cast<float>(alpha));
  for (const auto& [factor, shape] : adapter.shapes)
    writer.tensor(llamacpp_name_of(factor), GgufType::f32, {shape.first, shape.second});
  for (const auto& [factor, shape] : adapter.shapes) {
    const std::string path = path_of(factor), name = llamacpp_name_of(factor);
    AdapterMatrix m = adapter.values(factor);
    if (factor_of(factor) == Factor::b) {
      const AdapterTarget target = *matcher.match(path);
      multiply(m, target.scale * static_cast<double>(target.r) / alpha);
      if (path.ends_with("q_proj") || path.ends_with("k_proj")) m = interleaved(m, model.head_dim);
    }
    writer.write(name, m.values.data(), static_cast<int64_t>(m.values.size() * sizeof(float)));
    written[name] = hash_of(m.values);
  }
  writer.commit();
  check_read_back(file, written);
}

}  // namespace drover
