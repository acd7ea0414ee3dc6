// Reading a safetensors file: u64 header length, JSON header, row-major little-endian data. Source: the format's
// reference implementation. Every rule of the format is checked before anything is used: no hole, no overlap, no byte
// left over, no name twice; and our own limits.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/files/input_file.h"
#include "model/files/stored_type.h"

namespace drover {

inline constexpr size_t kHeaderLimit = size_t{32} << 20;   // bytes; what is read by default
inline constexpr size_t kFormatHeaderLimit = 100'000'000;  // bytes; what the format allows
inline constexpr size_t kTensorLimit = 65'536;
inline constexpr size_t kNameLimit = 512;  // bytes
inline constexpr size_t kRankLimit = 8;

struct StoredTensor {
  std::string name;
  StoredType dtype = StoredType::f32;
  std::vector<int64_t> shape;  // [] is one number
  size_t offset = 0;           // from the start of the file
  size_t bytes = 0;

  int64_t rows() const { return shape.empty() ? 1 : shape[0]; }
  int64_t cols() const;  // product of the other dimensions; 1 for a vector
  int64_t size() const { return rows() * cols(); }
};

std::string shape_text(std::span<const int64_t> shape);  // "[4, 48]"

// Bytes [begin, begin + count) of each row of `row_bytes`.
struct RowBytes {
  size_t row_bytes = 0, begin = 0, count = 0;
};

class SafetensorsFile {
 public:
  // missing_input when absent, bad_data with the file and the reason when it breaks a rule. Reads the header only.
  explicit SafetensorsFile(const fs::path& path, size_t header_limit = kHeaderLimit);

  const fs::path& path() const { return file_.path(); }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in the order of their data
  const StoredTensor* find(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  std::string header() const;  // read again
  size_t file_bytes() const { return file_.bytes(); }

  // Bytes of a tensor, counted from its first; the file may have become shorter since: io.
  void read(const StoredTensor& tensor, size_t begin, size_t count, void* out) const;
  void read_rows(const StoredTensor& tensor, size_t row, size_t rows, const RowBytes& part, void* out) const;
  std::vector<std::byte> read(const StoredTensor& tensor) const;  // all of a small one
  // f(bytes) of one piece of at most 16 MiB after the other.
  void read_in_pieces(const StoredTensor& tensor, const std::function<void(std::span<const std::byte>)>& f) const;
  void advise_scattered(bool on) const { file_.advise_scattered(on); }

 private:
  InputFile file_;
  size_t header_bytes_ = 0;
  std::vector<StoredTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace drover
