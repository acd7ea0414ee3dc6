// The quantised directories of tests/golden, and copies of them with something wrong.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "kernels/base/json.h"
#include "tests/base/scratch_directory.h"
#include "tests/files/made_up_files.h"

namespace drover {

inline const std::vector<std::string> kLayouts = {"nf4-nested", "nf4-plain",  "fbgemm",
                                                  "blocks",     "compressed", "modelopt"};

inline fs::path golden_directory(const std::string& layout) {
  return fs::path(DROVER_SOURCE_DIR) / "tests" / "golden" / "quantised" / layout;
}

inline std::string linear_name(const std::string& projection) {
  const bool mlp = projection == "gate" || projection == "up" || projection == "down";
  return std::string("model.layers.0.") + (mlp ? "mlp." : "self_attn.") + projection + "_proj.weight";
}

// Every tensor of the golden's model.
inline std::vector<ExpectedTensor> expected_of_golden() {
  return {{linear_name("q"), 128, 192},
          {linear_name("k"), 64, 192},
          {linear_name("v"), 64, 192},
          {linear_name("o"), 192, 128},
          {linear_name("gate"), 320, 192},
          {linear_name("up"), 320, 192},
          {linear_name("down"), 192, 320},
          {"model.embed_tokens.weight", 64, 192},
          {"model.norm.weight", 192},
          {"model.layers.0.input_layernorm.weight", 192},
          {"model.layers.0.post_attention_layernorm.weight", 192}};
}

struct RawTensor {
  StoredType dtype = StoredType::u8;
  std::vector<int64_t> shape;
  std::string bytes;
};
using RawTensors = std::map<std::string, RawTensor>;

inline void write_raw(const fs::path& path, const RawTensors& tensors) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors) specs.push_back({name, tensor.dtype, tensor.shape});
  SafetensorsWriter writer(path, specs);
  for (const TensorSpec& spec : writer.order())
    writer.write(spec.name, tensors.at(spec.name).bytes.data(),
                 static_cast<int64_t>(tensors.at(spec.name).bytes.size()));
  writer.commit();
}

inline RawTensor floats(const std::vector<float>& values, std::vector<int64_t> shape = {}) {
  if (shape.empty()) shape = {static_cast<int64_t>(values.size())};
  return {StoredType::f32, std::move(shape),
          std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float))};
}

inline RawTensor text_bytes(const std::string& text) {
  return {StoredType::u8, {static_cast<int64_t>(text.size())}, text};
}

// A golden directory in memory, to be changed and written.
class ChangedDirectory {
 public:
  explicit ChangedDirectory(const std::string& layout) {
    const fs::path from = golden_directory(layout);
    const SafetensorsFile file(from / "model.safetensors");
    for (const StoredTensor& t : file.tensors()) {
      const std::vector<std::byte> bytes = file.read(t);
      tensors[t.name] = {t.dtype, t.shape, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())};
    }
    config = parse_json(read_text(from / "config.json"), "config.json");
    if (fs::exists(from / "hf_quant_config.json")) older = read_text(from / "hf_quant_config.json");
  }
  RawTensors tensors;
  Json config;
  std::string older;

  const fs::path& written() {
    write_raw(scratch_ / "model.safetensors", tensors);
    write_text(scratch_ / "config.json", config.dump());
    if (!older.empty()) write_text(scratch_ / "hf_quant_config.json", older);
    return scratch_.path();
  }

 private:
  ScratchDirectory scratch_;
};

// Opens the directory, checks every tensor and reads every one.
inline void use(const fs::path& directory) {
  ModelDirectory model(directory);
  const std::vector<ExpectedTensor> expected = expected_of_golden();
  model.check_names(expected);
  model.check_shapes(expected);
  for (const ExpectedTensor& tensor : expected) {
    std::vector<float> values(static_cast<size_t>(tensor.rows * tensor.cols));
    model.read(tensor.name, 0, tensor.rows, 0, tensor.cols, DType::f32, values.data());
  }
}

}  // namespace drover
