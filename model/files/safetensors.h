// Reading a safetensors file: u64 header length, JSON header, row-major little-endian data. Source: the format's
// reference implementation. Every rule of the format is checked before anything is used: no hole, no overlap, no byte
// left over, no name twice; and our own limits.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/base/file.h"
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
  std::vector<int64_t> shape;        // [] is one number
  size_t offset = 0;                 // from the start of the file
  std::span<const std::byte> bytes;  // in the map: no alignment is promised

  int64_t rows() const { return shape.empty() ? 1 : shape[0]; }
  int64_t cols() const;  // product of the other dimensions; 1 for a vector
  int64_t size() const { return rows() * cols(); }
};

std::string shape_text(std::span<const int64_t> shape);  // "[4, 48]"

class SafetensorsFile {
 public:
  // missing_input when absent, bad_data with the file and the reason when it breaks a rule. Touches the header's pages
  // only.
  explicit SafetensorsFile(const fs::path& path, size_t header_limit = kHeaderLimit);

  const fs::path& path() const { return file_.path(); }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in the order of their data
  const StoredTensor* find(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  std::span<const std::byte> header() const { return file_.bytes().subspan(8, header_bytes_); }
  size_t file_bytes() const { return file_.bytes().size(); }
  void advise_done(size_t offset, size_t bytes) const { file_.advise_done(offset, bytes); }
  void advise_scattered(bool on) const { file_.advise_scattered(on); }

 private:
  MappedFile file_;
  size_t header_bytes_ = 0;
  std::vector<StoredTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace drover
