// Writing a safetensors file as a stream: all tensors are declared first, then their bytes come tensor by tensor.
// Byte for byte what the format's reference implementation writes for the same tensors: larger types first, then by
// name.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "kernels/base/file.h"
#include "model/files/stored_type.h"

namespace drover {

struct TensorSpec {
  std::string name;
  StoredType dtype = StoredType::f32;
  std::vector<int64_t> shape;
  int64_t bytes() const;
};

class SafetensorsWriter {
 public:
  SafetensorsWriter(const fs::path& path, std::vector<TensorSpec> tensors,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

  const std::vector<TensorSpec>& order() const { return tensors_; }  // the order in which bytes must come
  // The next bytes of `name`; a tensor may come in pieces. internal when out of order or too many.
  void write(const std::string& name, const void* data, int64_t bytes);
  void commit();  // internal when bytes are missing; then as AtomicFile

 private:
  std::vector<TensorSpec> tensors_;
  AtomicFile file_;
  size_t current_ = 0;
  int64_t written_ = 0;  // bytes of the current tensor
};

std::string safetensors_header(const std::vector<TensorSpec>& in_order,
                               const std::map<std::string, std::string>& metadata);  // padded to 8
void sort_canonically(std::vector<TensorSpec>& tensors);

}  // namespace drover
