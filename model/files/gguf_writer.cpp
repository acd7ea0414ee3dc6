#include "model/files/gguf_writer.h"

#include "kernels/base/require.h"

namespace drover {

namespace {

constexpr size_t kAlignment = 32;
constexpr uint32_t kVersion = 3, kFloat = 6, kText = 8;  // of the format; types of a key's value

template <typename T>
std::string bytes_of(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string text_bytes(const std::string& text) { return bytes_of(static_cast<uint64_t>(text.size())) + text; }

void align(std::string& bytes) { bytes.resize((bytes.size() + kAlignment - 1) / kAlignment * kAlignment, '\0'); }

}  // namespace

void GgufWriter::key(const std::string& name, uint32_t type, const std::string& bytes) {
  keys_ += text_bytes(name) + bytes_of(type) + bytes;
  ++key_count_;
}

void GgufWriter::text(const std::string& name, const std::string& value) { key(name, kText, text_bytes(value)); }
void GgufWriter::number(const std::string& name, float value) { key(name, kFloat, bytes_of(value)); }

void GgufWriter::tensor(const std::string& name, const std::vector<int64_t>& shape, const std::vector<float>& values) {
  int64_t size = 1;
  for (const int64_t side : shape) size *= side;
  require(size == static_cast<int64_t>(values.size()), "a tensor has its shape's values");
  align(data_);
  infos_ += text_bytes(name) + bytes_of(static_cast<uint32_t>(shape.size()));
  for (size_t i = shape.size(); i-- > 0;) infos_ += bytes_of(static_cast<uint64_t>(shape[i]));  // the fastest first
  infos_ += bytes_of(static_cast<uint32_t>(GgufType::f32)) + bytes_of(static_cast<uint64_t>(data_.size()));
  data_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  ++tensor_count_;
}

std::string GgufWriter::finish() const {
  std::string file = "GGUF" + bytes_of(kVersion) + bytes_of(tensor_count_) + bytes_of(key_count_) + keys_ + infos_;
  align(file);
  return file + data_;
}

}  // namespace drover
