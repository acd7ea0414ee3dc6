#include "model/files/safetensors_writer.h"

#include <algorithm>

#include "kernels/base/json.h"

namespace drover {

int64_t TensorSpec::bytes() const {
  int64_t bytes = size_of(dtype);
  for (int64_t dimension : shape) bytes *= dimension;
  return bytes;
}

void sort_canonically(std::vector<TensorSpec>& tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorSpec& a, const TensorSpec& b) {
    return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
  });
}

std::string safetensors_header(const std::vector<TensorSpec>& in_order,
                               const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) text += "\"__metadata__\":" + Json(metadata).dump();
  int64_t at = 0;
  for (const TensorSpec& tensor : in_order) {
    const int64_t end = at + tensor.bytes();
    OrderedJson entry = OrderedJson::object();
    entry["dtype"] = name_of(tensor.dtype);
    entry["shape"] = tensor.shape;
    entry["data_offsets"] = {at, end};
    if (text.size() > 1) text += ',';
    text += Json(tensor.name).dump() + ':' + entry.dump();
    at = end;
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

SafetensorsWriter::SafetensorsWriter(const fs::path& path, std::vector<TensorSpec> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : tensors_(std::move(tensors)), file_(path) {
  sort_canonically(tensors_);
  for (size_t i = 1; i < tensors_.size(); ++i)
    require(tensors_[i - 1].name != tensors_[i].name, "a tensor is declared once");
  const std::string header = safetensors_header(tensors_, metadata);
  const uint64_t length = header.size();
  file_.write(&length, 8);
  file_.write(header);
}

void SafetensorsWriter::write(const std::string& name, const void* data, int64_t bytes) {
  while (current_ < tensors_.size() && written_ == tensors_[current_].bytes() && tensors_[current_].name != name) {
    ++current_;
    written_ = 0;
  }
  require(current_ < tensors_.size() && tensors_[current_].name == name, "tensors are written in the writer's order");
  require(bytes >= 0 && bytes <= tensors_[current_].bytes() - written_, "a tensor gets as many bytes as declared");
  file_.write(data, static_cast<size_t>(bytes));
  written_ += bytes;
}

void SafetensorsWriter::commit() {
  while (current_ < tensors_.size() && written_ == tensors_[current_].bytes()) {
    ++current_;
    written_ = 0;
  }
  require(current_ == tensors_.size(), "every declared tensor was written");
  file_.commit();
}

}  // namespace drover
