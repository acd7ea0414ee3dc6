#include "model/files/gguf_writer.h"

#include <limits>

#include "kernels/base/require.h"
#include "model/files/gguf_types.h"

namespace drover {

namespace {

constexpr int64_t kAlignment = 32;
constexpr uint32_t kVersion = 3;                                                          // of the format
constexpr uint32_t kUint32 = 4, kInt32 = 5, kFloat = 6, kBool = 7, kText = 8, kList = 9;  // types of a key's value

template <typename T>
std::string bytes_of(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string text_bytes(const std::string& text) { return bytes_of(static_cast<uint64_t>(text.size())) + text; }

std::string padding_of(int64_t bytes) {
  return std::string(static_cast<size_t>(GgufWriter::aligned(bytes) - bytes), '\0');
}

}  // namespace

int64_t GgufWriter::aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

void GgufWriter::key(const std::string& name, uint32_t type, const std::string& bytes) {
  require(!begun_, "keys come before the tensors' bytes");
  keys_ += text_bytes(name) + bytes_of(type) + bytes;
  ++key_count_;
}

void GgufWriter::text(const std::string& name, const std::string& value) { key(name, kText, text_bytes(value)); }
void GgufWriter::number(const std::string& name, float value) { key(name, kFloat, bytes_of(value)); }
void GgufWriter::flag(const std::string& name, bool value) { key(name, kBool, bytes_of(static_cast<uint8_t>(value))); }

void GgufWriter::integer(const std::string& name, int64_t value) {
  require(value >= 0 && value <= std::numeric_limits<uint32_t>::max(), "a key's number fits 32 bits");
  key(name, kUint32, bytes_of(static_cast<uint32_t>(value)));
}

void GgufWriter::texts(const std::string& name, const std::vector<std::string>& values) {
  std::string bytes = bytes_of(kText) + bytes_of(static_cast<uint64_t>(values.size()));
  for (const std::string& value : values) bytes += text_bytes(value);
  key(name, kList, bytes);
}

void GgufWriter::integers(const std::string& name, const std::vector<int32_t>& values) {
  std::string bytes = bytes_of(kInt32) + bytes_of(static_cast<uint64_t>(values.size()));
  for (const int32_t value : values) bytes += bytes_of(value);
  key(name, kList, bytes);
}

void GgufWriter::tensor(const std::string& name, GgufType type, const std::vector<int64_t>& shape) {
  require(!begun_, "tensors are declared before their bytes come");
  const GgufBlock block = gguf_block(type);
  require(!shape.empty() && shape.back() % block.weights == 0, "rows are whole blocks of the type");
  int64_t size = 1;
  infos_ += text_bytes(name) + bytes_of(static_cast<uint32_t>(shape.size()));
  for (size_t i = shape.size(); i-- > 0;) {  // the fastest first
    infos_ += bytes_of(static_cast<uint64_t>(shape[i]));
    size *= shape[i];
  }
  infos_ += bytes_of(static_cast<uint32_t>(type)) + bytes_of(static_cast<uint64_t>(data_bytes_));
  tensors_.push_back({name, size / block.weights * block.bytes});
  data_bytes_ += aligned(tensors_.back().bytes);
}

std::string GgufWriter::header() const {
  const std::string header = "GGUF" + bytes_of(kVersion) + bytes_of(static_cast<uint64_t>(tensors_.size())) +
                             bytes_of(key_count_) + keys_ + infos_;
  return header + padding_of(static_cast<int64_t>(header.size()));
}

int64_t GgufWriter::bytes() const { return static_cast<int64_t>(header().size()) + data_bytes_; }

void GgufWriter::write(const std::string& name, const void* data, int64_t bytes) {
  if (!begun_) file_.write(header());
  begun_ = true;
  require(current_ < tensors_.size() && tensors_[current_].name == name, "tensors are written as declared");
  const int64_t whole = tensors_[current_].bytes;
  require(bytes <= whole - written_, "a tensor has as many bytes as declared");
  file_.write(data, static_cast<size_t>(bytes));
  written_ += bytes;
  if (written_ < whole) return;
  file_.write(padding_of(whole));
  ++current_;
  written_ = 0;
}

void GgufWriter::commit() {
  if (!begun_) file_.write(header());
  require(current_ == tensors_.size(), "every tensor was written");
  file_.commit();
}

}  // namespace drover
