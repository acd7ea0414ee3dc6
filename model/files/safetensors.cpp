#include "model/files/safetensors.h"

#include <algorithm>
#include <cstring>

#include "kernels/base/json.h"
#include "model/files/safetensors_header.h"

namespace drover {

namespace {

constexpr size_t kPieceBytes = size_t{16} << 20;

// The bytes of a tensor; bad_data when a product of some of its dimensions does not fit: also next to a 0, so that
// rows() and cols() do.
uint64_t checked_bytes(const HeaderEntry& entry, const std::string& where) {
  int64_t bytes = size_of(entry.dtype);
  bool empty = false;
  for (int64_t dimension : entry.shape) {
    empty |= dimension == 0;
    if (dimension != 0 && __builtin_mul_overflow(bytes, dimension, &bytes)) {
      fail(Fault::bad_data, "{}: the shape {} of {} is too large", where, shape_text(entry.shape), clipped(entry.name));
    }
  }
  return empty ? 0 : static_cast<uint64_t>(bytes);
}

std::string_view text_of(const FileWindow& window) {
  return {reinterpret_cast<const char*>(window.data()), window.bytes().size()};
}

// How long the header is; bad_data when that cannot be.
size_t header_length(const WindowedFile& file, size_t limit, const std::string& where) {
  if (file.size() < 8) {
    fail(Fault::bad_data, "{}: only {} bytes; not a safetensors file, or cut off: fetch it again", where, file.size());
  }
  const FileWindow begins = file.window(0, std::min(file.size(), kLfsPointer.size()));
  if (text_of(begins) == kLfsPointer) {
    fail(Fault::bad_data,
         "{}: is a Git LFS pointer, not the weights themselves; in the model's repository: git lfs pull", where);
  }
  uint64_t length;
  std::memcpy(&length, begins.data(), 8);
  if (length > kFormatHeaderLimit) {
    fail(Fault::bad_data,
         "{}: the first 8 bytes give a header of {} bytes; the format allows {}: not a safetensors file, or damaged",
         where, length, kFormatHeaderLimit);
  }
  if (length > file.size() - 8) {
    fail(Fault::bad_data,
         "{}: a header of {} bytes does not fit into a file of {} bytes: the file is cut off, fetch it again", where,
         length, file.size());
  }
  if (length > limit) fail(Fault::bad_data, "{}: a header of {} bytes; at most {} are read", where, length, limit);
  if (length == 0 || *file.window(8, 1).data() != std::byte{'{'})
    fail(Fault::bad_data, "{}: the header does not begin with '{{': not a safetensors file", where);
  return length;
}

}  // namespace

int64_t StoredTensor::cols() const {
  int64_t product = 1;
  for (size_t i = 1; i < shape.size(); ++i) product *= shape[i];
  return product;
}

std::string shape_text(std::span<const int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

SafetensorsFile::SafetensorsFile(const fs::path& path, size_t header_limit) : file_(path) {
  const std::string where = path.string();
  header_bytes_ = header_length(file_, std::min(header_limit, kFormatHeaderLimit), where);
  SafetensorsHeader header = parse_safetensors_header(text_of(this->header()), where);
  metadata_ = std::move(header.metadata);

  std::stable_sort(header.entries.begin(), header.entries.end(), [](const HeaderEntry& a, const HeaderEntry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  const size_t data = 8 + header_bytes_;
  const uint64_t data_bytes = file_.size() - data;
  uint64_t at = 0;
  for (HeaderEntry& entry : header.entries) {
    const std::string name = clipped(entry.name);
    if (entry.begin > entry.end) {
      fail(Fault::bad_data, "{}: the data of {} ends at {} before it begins at {}", where, name, entry.end,
           entry.begin);
    }
    if (entry.begin != at) {
      fail(Fault::bad_data,
           "{}: the data of {} begins at {} where {} was expected: tensors may neither overlap nor leave holes", where,
           name, entry.begin, at);
    }
    const uint64_t bytes = checked_bytes(entry, where);
    if (entry.end - entry.begin != bytes) {
      fail(Fault::bad_data, "{}: {} has {} bytes of data where {} {} needs {}", where, name, entry.end - entry.begin,
           name_of(entry.dtype), shape_text(entry.shape), bytes);
    }
    if (entry.end > data_bytes) {
      fail(Fault::bad_data,
           "{}: the data of {} ends at {} but the file has only {} bytes of data: the file is cut off, fetch it again",
           where, name, entry.end, data_bytes);
    }
    at = entry.end;
    index_.emplace(entry.name, tensors_.size());
    tensors_.push_back({.name = std::move(entry.name),
                        .dtype = entry.dtype,
                        .shape = std::move(entry.shape),
                        .offset = data + entry.begin,
                        .bytes = bytes});
  }
  if (at != data_bytes) {
    fail(Fault::bad_data, "{}: {} bytes follow the last tensor's data; the format allows none", where, data_bytes - at);
  }
}

const StoredTensor* SafetensorsFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

FileWindow SafetensorsFile::window(const StoredTensor& tensor, size_t begin, size_t count, FileAccess access) const {
  require(begin <= tensor.bytes && count <= tensor.bytes - begin, "a window lies inside its tensor");
  return file_.window(tensor.offset + begin, count, access);
}

void SafetensorsFile::each_piece(const StoredTensor& tensor,
                                 const std::function<bool(size_t begin, std::span<const std::byte> bytes)>& f) const {
  for (size_t begin = 0; begin < tensor.bytes; begin += kPieceBytes) {
    if (!f(begin, window(tensor, begin, std::min(kPieceBytes, tensor.bytes - begin)).bytes())) return;
  }
}

}  // namespace drover
