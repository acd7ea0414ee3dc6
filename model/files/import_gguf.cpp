#include "model/files/import_gguf.h"

#include <algorithm>
#include <map>
#include <set>

#include "kernels/base/hash.h"
#include "kernels/base/json.h"
#include "kernels/base/log.h"
#include "model/config.h"
#include "model/files/gguf.h"
#include "model/files/gguf_config.h"
#include "model/files/gguf_tensors.h"
#include "model/files/gguf_tokenizer.h"
#include "model/files/gguf_types.h"
#include "model/files/safetensors.h"
#include "model/files/safetensors_writer.h"
#include "model/files/staged_directory.h"

namespace drover {

namespace {

constexpr const char* kRecord = "drover_import.json";

// Every tensor has its place and shape; a tensor without a place (a bias, an expert) would change the arithmetic.
void check_tensors(const GgufFile& file, const std::map<std::string, GgufPlace>& table) {
  const std::string where = file.path().string();
  std::set<std::string> known = {kGgufRopeFactors};
  for (const auto& [name, source] : table) {
    known.insert(source.name);
    const GgufTensor* tensor = file.find(source.name);
    if (tensor == nullptr) fail(Fault::bad_data, "{}: the tensor {} is missing", where, source.name);
    if (tensor->shape != source.shape()) {
      fail(Fault::bad_data, "{}: {} is {} where the keys llama.* give {}", where, source.name,
           shape_text(tensor->shape), shape_text(source.shape()));
    }
  }
  for (const GgufTensor& tensor : file.tensors()) {
    if (known.count(tensor.name) == 0)
      fail(Fault::bad_data, "{}: the tensor {} has no place in a Llama model", where, clipped(tensor.name));
  }
}

bool is_exact_in_bf16(const GgufTensor& tensor) {
  std::vector<float> row(static_cast<size_t>(tensor.row_size()));
  for (int64_t at = 0; at < tensor.size(); at += tensor.row_size()) {
    dequantise(tensor, at, tensor.row_size(), row.data());
    for (const float v : row) {
      if (static_cast<float>(bf16(v)) != v) return false;
    }
  }
  return true;
}

// What holds a tensor's numbers: fp16 stays, fp32 does where bf16 would round it. Quantised ones are rounded to bf16.
StoredType stored_type_of(const GgufTensor& tensor) {
  if (tensor.type == GgufType::f16) return StoredType::f16;
  return tensor.type == GgufType::f32 && !is_exact_in_bf16(tensor) ? StoredType::f32 : StoredType::bf16;
}

void append(std::vector<char>& bytes, StoredType type, float value) {
  const auto add = [&](const auto& number) {
    const char* from = reinterpret_cast<const char*>(&number);
    bytes.insert(bytes.end(), from, from + sizeof number);
  };
  if (type == StoredType::f32) return add(value);
  add(type == StoredType::f16 ? half_of_float(value) : bf16(value).bits);
}

std::vector<TensorSpec> specs_of(const GgufFile& file, const std::map<std::string, GgufPlace>& table) {
  std::vector<TensorSpec> specs;
  size_t quantised = 0;
  for (const auto& [name, source] : table) {
    const GgufTensor& tensor = *file.find(source.name);
    specs.push_back({name, stored_type_of(tensor), source.shape()});
    quantised += is_quantised(tensor.type) ? 1 : 0;
  }
  if (quantised > 0)
    log::info("{} of {} tensors are quantised; their weights are written in bf16, rounded once", quantised,
              specs.size());
  return specs;
}

void write_weights(const GgufFile& file, const std::map<std::string, GgufPlace>& table, int64_t head_dim,
                   const std::vector<TensorSpec>& specs, const fs::path& path) {
  SafetensorsWriter writer(path, specs);
  for (const TensorSpec& spec : writer.order()) {
    const GgufPlace& source = table.at(spec.name);
    const GgufTensor& tensor = *file.find(source.name);
    const int64_t row_size = tensor.row_size(), rows = tensor.size() / row_size;
    const int64_t at_once = !source.interleaved ? std::clamp<int64_t>((int64_t{1} << 20) / row_size, 1, rows) : 1;
    std::vector<float> values(static_cast<size_t>(at_once * row_size));
    std::vector<char> bytes;
    for (int64_t row = 0; row < rows; row += at_once) {
      const int64_t count = std::min(at_once, rows - row) * row_size;
      const int64_t from = source.interleaved ? row_in_gguf(row, head_dim) : row;
      dequantise(tensor, from * row_size, count, values.data());
      bytes.clear();
      for (int64_t i = 0; i < count; ++i) append(bytes, spec.dtype, values[static_cast<size_t>(i)]);
      writer.write(spec.name, bytes.data(), static_cast<int64_t>(bytes.size()));
    }
    file.advise_done(tensor);
  }
  writer.commit();
}

const std::set<std::string>& written_files() {
  static const std::set<std::string> names = {"config.json",    "generation_config.json", "model.safetensors",
                                              "tokenizer.json", "tokenizer_config.json",  kRecord};
  return names;
}

// Whether the directory holds a whole import of the file with this hash.
bool imported_before(const fs::path& directory, const std::string& sha256) {
  std::error_code ignored;
  for (const std::string& name : written_files()) {
    if (!fs::exists(directory / name, ignored)) return false;
  }
  static_cast<void>(SafetensorsFile(directory / "model.safetensors"));  // bad_data when it was damaged since
  const Json record = parse_json(read_text(directory / kRecord, 1 << 20), (directory / kRecord).string());
  return record.is_object() && record.value("sha256", Json()) == sha256;
}

}  // namespace

bool import_gguf(const fs::path& file, const fs::path& directory) {
  const GgufFile gguf(file);
  const std::string sha256 = sha256_file(file);
  if (imported_before(directory, sha256)) {
    log::info("{} already holds the import of {}", directory.string(), file.string());
    return false;
  }
  StagedDirectory staged(directory);
  ModelConfig config = read_gguf_config(gguf);
  const auto table = gguf_places(config);
  check_tensors(gguf, table);
  const std::vector<TensorSpec> specs = specs_of(gguf, table);
  const auto is_half = [](const TensorSpec& spec) { return spec.dtype == StoredType::f16; };
  if (std::any_of(specs.begin(), specs.end(), is_half)) config.storage_dtype = "float16";
  const TokenizerFiles tokenizer = gguf_tokenizer(gguf, config);
  write_text(staged.path() / "config.json", write_model_config(config));
  write_text(staged.path() / "tokenizer.json", tokenizer.tokenizer);
  write_text(staged.path() / "tokenizer_config.json", tokenizer.tokenizer_config);
  write_text(staged.path() / "generation_config.json", tokenizer.generation_config);
  write_weights(gguf, table, config.head_dim, specs, staged.path() / "model.safetensors");
  const OrderedJson record = {{"source", file.filename().string()},
                              {"sha256", sha256},
                              {"name", gguf.text("general.name", "")},
                              {"license", gguf.text("general.license", "")}};
  write_text(staged.path() / kRecord, record.dump(2) + "\n");
  staged.commit();
  return true;
}

}  // namespace drover
