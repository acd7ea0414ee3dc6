// Files for tests, written by hand so that they can be wrong in one place.
#pragma once
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/base/file.h"
#include "model/config.h"
#include "model/files/model_directory.h"
#include "model/files/safetensors_writer.h"

namespace drover {

template <typename T>
std::string bytes_of(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
}

inline std::string safetensors_text(const std::string& header, size_t data_bytes) {
  return bytes_of(static_cast<uint64_t>(header.size())) + header + std::string(data_bytes, '\0');
}

inline void write_safetensors(const fs::path& path,
                              const std::vector<std::pair<TensorSpec, std::vector<float>>>& tensors) {
  std::vector<TensorSpec> specs;
  for (const auto& [spec, values] : tensors) specs.push_back(spec);
  SafetensorsWriter writer(path, specs);
  for (const TensorSpec& spec : writer.order()) {
    for (const auto& [other, values] : tensors) {
      if (other.name != spec.name) continue;
      std::vector<char> data(static_cast<size_t>(spec.bytes()));
      if (spec.dtype == StoredType::bf16)
        convert(StoredType::f32, reinterpret_cast<const std::byte*>(values.data()), static_cast<int64_t>(values.size()),
                DType::bf16, data.data());
      if (spec.dtype == StoredType::f32) std::memcpy(data.data(), values.data(), data.size());
      writer.write(spec.name, data.data(), spec.bytes());
    }
  }
  writer.commit();
}

inline std::vector<float> counted(int64_t count, float first = 0) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = first + static_cast<float>(i);
  return values;
}

inline ModelConfig small_config() {
  return {.hidden = 8,
          .layers = 1,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 4,
          .ffn = 12,
          .vocab = 10,
          .max_positions = 64,
          .tied_head = true,
          .bos = 1,
          .eos = {2}};
}

// A GGUF file piece by piece.
struct GgufText {
  std::string keys, infos, data;
  uint64_t key_count = 0, tensor_count = 0;

  static std::string text(const std::string& value) { return bytes_of(static_cast<uint64_t>(value.size())) + value; }
  void key(const std::string& name, uint32_t type, const std::string& value) {
    keys += text(name) + bytes_of(type) + value;
    ++key_count;
  }
  void u32(const std::string& name, uint32_t value) { key(name, 4, bytes_of(value)); }
  void f32(const std::string& name, float value) { key(name, 6, bytes_of(value)); }
  void string(const std::string& name, const std::string& value) { key(name, 8, text(value)); }
  void strings(const std::string& name, const std::vector<std::string>& values) {
    std::string all = bytes_of(uint32_t{8}) + bytes_of(static_cast<uint64_t>(values.size()));
    for (const auto& value : values) all += text(value);
    key(name, 9, all);
  }
  void ints(const std::string& name, const std::vector<int32_t>& values) {
    std::string all = bytes_of(uint32_t{5}) + bytes_of(static_cast<uint64_t>(values.size()));
    for (int32_t value : values) all += bytes_of(value);
    key(name, 9, all);
  }
  void tensor(const std::string& name, std::vector<uint64_t> fastest_first, uint32_t type, const std::string& bytes) {
    data.resize((data.size() + 31) / 32 * 32, '\0');
    infos += text(name) + bytes_of(static_cast<uint32_t>(fastest_first.size()));
    for (uint64_t n : fastest_first) infos += bytes_of(n);
    infos += bytes_of(type) + bytes_of(static_cast<uint64_t>(data.size()));
    data += bytes;
    ++tensor_count;
  }
  void floats(const std::string& name, std::vector<uint64_t> fastest_first, const std::vector<float>& values) {
    tensor(name, std::move(fastest_first), 0,
           std::string(reinterpret_cast<const char*>(values.data()), values.size() * 4));
  }
  std::string finished(uint32_t version = 3) const {
    std::string all = "GGUF" + bytes_of(version) + bytes_of(tensor_count) + bytes_of(key_count) + keys + infos;
    all.resize((all.size() + 31) / 32 * 32, '\0');
    return all + data;
  }
};

}  // namespace drover
