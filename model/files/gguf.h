// Reading a GGUF file (v2, v3): header, key-values, tensor infos, padding, data. Source: the format's specification in
// ggml. The file is a stranger's: every length is checked against what is left before it is used, products against
// overflow.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "kernels/base/file.h"

namespace drover {

enum class GgufType : uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  bf16 = 30
};

struct GgufTensor {
  std::string name;
  GgufType type = GgufType::f32;
  std::vector<int64_t> shape;        // as Hugging Face has it: rows first
  std::span<const std::byte> bytes;  // in the map
  int64_t size() const;
  int64_t row_size() const { return shape.back(); }  // a whole number of blocks
};

using GgufValue = std::variant<int64_t, double, bool, std::string, std::vector<int64_t>, std::vector<double>,
                               std::vector<std::string>>;

class GgufFile {
 public:
  explicit GgufFile(const fs::path& path);  // missing_input when absent; bad_data with the file and the reason,
                                            // unsupported tensor types by name

  const fs::path& path() const { return file_.path(); }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* find(const std::string& name) const;
  void advise_done(const GgufTensor& tensor) const;

  bool has(const std::string& key) const { return values_.count(key) != 0; }
  // bad_data when the key is missing (without a default) or of another type, and for text that is not UTF-8.
  int64_t integer(const std::string& key, std::optional<int64_t> absent = {}) const;
  double number(const std::string& key, std::optional<double> absent = {}) const;
  bool flag(const std::string& key, bool absent) const;
  std::string text(const std::string& key, std::optional<std::string> absent = {}) const;
  const std::vector<std::string>& texts(const std::string& key) const;
  const std::vector<int64_t>& integers(const std::string& key) const;

 private:
  template <typename T>
  const T* value(const std::string& key, const char* type) const;
  MappedFile file_;
  std::map<std::string, GgufValue> values_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t> index_;
};

// Elements [begin, begin + count) of the tensor, whole rows, as fp32: what ggml's definition of the type gives,
// exactly.
void dequantise(const GgufTensor& tensor, int64_t begin, int64_t count, float* out);

}  // namespace drover
