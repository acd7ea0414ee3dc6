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

// The header's text; bad_data when its length cannot be.
std::string read_header(const InputFile& file, size_t limit) {
  const std::string where = file.path().string();
  if (file.bytes() < 8) {
    fail(Fault::bad_data, "{}: only {} bytes; not a safetensors file, or cut off: fetch it again", where, file.bytes());
  }
  std::string begins(std::min(file.bytes(), kLfsPointer.size()), '\0');
  file.read(0, begins.size(), begins.data());
  if (begins == kLfsPointer) {
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
  if (length > file.bytes() - 8) {
    fail(Fault::bad_data,
         "{}: a header of {} bytes does not fit into a file of {} bytes: the file is cut off, fetch it again", where,
         length, file.bytes());
  }
  if (length > limit) fail(Fault::bad_data, "{}: a header of {} bytes; at most {} are read", where, length, limit);
  std::string text(length, '\0');
  file.read(8, length, text.data());
  if (text.empty() || text[0] != '{')
    fail(Fault::bad_data, "{}: the header does not begin with '{{': not a safetensors file", where);
  return text;
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
  const std::string text = read_header(file_, std::min(header_limit, kFormatHeaderLimit));
  header_bytes_ = text.size();
  SafetensorsHeader header = parse_safetensors_header(text, where);
  metadata_ = std::move(header.metadata);

  std::stable_sort(header.entries.begin(), header.entries.end(), [](const HeaderEntry& a, const HeaderEntry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  const size_t data = 8 + header_bytes_;
  const uint64_t data_bytes = file_.bytes() - data;
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

std::string SafetensorsFile::header() const {
  std::string text(header_bytes_, '\0');
  file_.read(8, header_bytes_, text.data());
  return text;
}

void SafetensorsFile::read(const StoredTensor& tensor, size_t begin, size_t count, void* out) const {
  require(begin <= tensor.bytes && count <= tensor.bytes - begin, "what is read lies inside its tensor");
  file_.read(tensor.offset + begin, count, out);
}

void SafetensorsFile::read_rows(const StoredTensor& tensor, size_t row, size_t rows, const RowBytes& part,
                                void* out) const {
  constexpr size_t kShortRow = 4096;  // bytes: reading whole rows is cheaper than a call of the system for each
  auto* to = static_cast<std::byte*>(out);
  if (part.count == part.row_bytes) return read(tensor, row * part.row_bytes, rows * part.count, to);
  const bool whole = part.row_bytes <= kShortRow;
  const size_t at_once = whole ? kPieceBytes / kShortRow : 1;
  std::vector<std::byte> piece;
  for (size_t r = 0; r < rows; r += at_once) {
    const size_t some = std::min(at_once, rows - r), first = (row + r) * part.row_bytes;
    if (!whole) {
      read(tensor, first + part.begin, part.count, to);
      to += part.count;
      continue;
    }
    piece.resize(some * part.row_bytes);
    read(tensor, first, piece.size(), piece.data());
    for (size_t i = 0; i < some; ++i, to += part.count)
      std::memcpy(to, piece.data() + i * part.row_bytes + part.begin, part.count);
  }
}

std::vector<std::byte> SafetensorsFile::read(const StoredTensor& tensor) const {
  std::vector<std::byte> bytes(tensor.bytes);
  read(tensor, 0, tensor.bytes, bytes.data());
  return bytes;
}

void SafetensorsFile::read_in_pieces(const StoredTensor& tensor,
                                     const std::function<void(std::span<const std::byte>)>& f) const {
  std::vector<std::byte> piece;
  for (size_t at = 0; at < tensor.bytes; at += piece.size()) {
    piece.resize(std::min(kPieceBytes, tensor.bytes - at));
    read(tensor, at, piece.size(), piece.data());
    f(piece);
  }
}

}  // namespace drover
