#include "model/files/gguf.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/base/error.h"
#include "kernels/base/json.h"
#include "model/files/gguf_types.h"

namespace drover {

namespace {

constexpr uint64_t kKeys = 65'536, kTensors = 65'536, kKeyBytes = 65'535, kNameBytes = 512;
constexpr uint64_t kArrayLength = 4'000'000, kTextBytes = uint64_t{16} << 20;

enum class Kind : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

// What is left of the file; every read is checked against it.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

  size_t at() const { return at_; }
  [[noreturn]] void wrong(const std::string& what) const {
    fail(Fault::bad_data, "{}: {} (at byte {})", where_, what, at_);
  }
  void need(uint64_t count) const {
    if (count > bytes_.size() - at_)
      wrong(fmt::format("{} bytes are needed where {} are left: the file is cut off or damaged", count,
                        bytes_.size() - at_));
  }
  template <typename T>
  T take() {
    need(sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  std::string text(uint64_t limit, const char* what) {
    const uint64_t length = take<uint64_t>();
    if (length > limit) wrong(fmt::format("{} of {} bytes; at most {} are read", what, length, limit));
    need(length);
    std::string value(reinterpret_cast<const char*>(bytes_.data()) + at_, length);
    at_ += length;
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
  std::string where_;
  size_t at_ = 0;
};

bool is_real(Kind kind) { return kind == Kind::f32 || kind == Kind::f64; }

int64_t take_integer(Cursor& in, Kind kind) {
  switch (kind) {
    case Kind::u8: return in.take<uint8_t>();
    case Kind::i8: return in.take<int8_t>();
    case Kind::u16: return in.take<uint16_t>();
    case Kind::i16: return in.take<int16_t>();
    case Kind::u32: return in.take<uint32_t>();
    case Kind::i32: return in.take<int32_t>();
    case Kind::boolean: return in.take<uint8_t>() != 0;
    case Kind::i64: return in.take<int64_t>();
    case Kind::u64: {
      const uint64_t value = in.take<uint64_t>();
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        in.wrong(fmt::format("the number {} is too large", value));
      return static_cast<int64_t>(value);
    }
    default: in.wrong(fmt::format("a value of the unknown type {}", static_cast<uint32_t>(kind)));
  }
}

double take_real(Cursor& in, Kind kind) { return kind == Kind::f32 ? in.take<float>() : in.take<double>(); }

GgufValue take_array(Cursor& in) {
  const Kind kind = static_cast<Kind>(in.take<uint32_t>());
  const uint64_t length = in.take<uint64_t>();
  if (kind == Kind::array) in.wrong("a list of lists; none is read");
  if (length > kArrayLength) in.wrong(fmt::format("a list of {} values; at most {} are read", length, kArrayLength));
  in.need(length * (kind == Kind::text ? 8 : 1));
  if (kind == Kind::text) {
    std::vector<std::string> values(length);
    for (auto& value : values) value = in.text(kTextBytes, "a string");
    return values;
  }
  if (is_real(kind)) {
    std::vector<double> values(length);
    for (double& value : values) value = take_real(in, kind);
    return values;
  }
  std::vector<int64_t> values(length);
  for (int64_t& value : values) value = take_integer(in, kind);
  return values;
}

GgufValue take_value(Cursor& in) {
  const Kind kind = static_cast<Kind>(in.take<uint32_t>());
  if (kind == Kind::array) return take_array(in);
  if (kind == Kind::text) return in.text(kTextBytes, "a string");
  if (kind == Kind::boolean) return in.take<uint8_t>() != 0;
  if (is_real(kind)) return take_real(in, kind);
  return take_integer(in, kind);
}

struct TensorInfo {
  GgufTensor tensor;
  uint64_t offset = 0, bytes = 0;
};

TensorInfo take_tensor(Cursor& in, const std::string& where, uint64_t alignment) {
  TensorInfo info;
  GgufTensor& tensor = info.tensor;
  tensor.name = in.text(kNameBytes, "a tensor's name");
  const std::string name = clipped(tensor.name);
  const uint32_t dimensions = in.take<uint32_t>();
  if (dimensions < 1 || dimensions > 4)
    in.wrong(fmt::format("{} has {} dimensions; allowed are 1 to 4", name, dimensions));
  tensor.shape.resize(dimensions);
  uint64_t size = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const uint64_t n = in.take<uint64_t>();
    if (n == 0 || __builtin_mul_overflow(size, n, &size) || size > uint64_t{1} << 48)
      in.wrong(fmt::format("{} has an impossible shape", name));
    tensor.shape[dimensions - 1 - i] = static_cast<int64_t>(n);
  }
  const uint32_t type = in.take<uint32_t>();
  if (!gguf_supported(type)) {
    fail(Fault::bad_data, "{}: {} is stored as {}; allowed are {}: take such a file of the model", where, name,
         gguf_type_name(type), gguf_types_read());
  }
  tensor.type = static_cast<GgufType>(type);
  const GgufBlock block = gguf_block(tensor.type);
  if (tensor.row_size() % block.weights != 0) {
    in.wrong(fmt::format("{} has rows of {}, which blocks of {} do not fill", name, tensor.row_size(), block.weights));
  }
  info.bytes = size / static_cast<uint64_t>(block.weights) * static_cast<uint64_t>(block.bytes);
  info.offset = in.take<uint64_t>();
  if (info.offset % alignment != 0)
    in.wrong(fmt::format("the data of {} begins at {}, no multiple of {}", name, info.offset, alignment));
  return info;
}

uint64_t counted(Cursor& in, uint64_t limit, const char* what) {
  const uint64_t count = in.take<uint64_t>();
  if (count > limit) in.wrong(fmt::format("{} {}; at most {} are read", count, what, limit));
  return count;
}

}  // namespace

int64_t GgufTensor::size() const {
  int64_t product = 1;
  for (int64_t n : shape) product *= n;
  return product;
}

GgufFile::GgufFile(const fs::path& path) : file_(path) {
  const std::string where = path.string();
  Cursor in(file_.bytes(), where);
  if (file_.bytes().size() < 4 || in.take<uint32_t>() != 0x46554747u)
    fail(Fault::bad_data, "{} is not a GGUF file", where);
  const uint32_t version = in.take<uint32_t>();
  if (version != 2 && version != 3)
    fail(Fault::bad_data, "{}: GGUF version {}; allowed are 2 and 3, little-endian", where, version);
  const uint64_t tensors = counted(in, kTensors, "tensors");
  const uint64_t keys = counted(in, kKeys, "keys");
  for (uint64_t i = 0; i < keys; ++i) {
    std::string key = in.text(kKeyBytes, "a key");
    const bool is_new = values_.emplace(key, take_value(in)).second;
    if (!is_new) fail(Fault::bad_data, "{}: the key {} stands twice", where, clipped(key));
  }
  const uint64_t alignment = static_cast<uint64_t>(integer("general.alignment", 32));
  if (alignment < 1 || alignment > 1 << 20 || (alignment & (alignment - 1)) != 0) {
    fail(Fault::bad_data, "{}: general.alignment is {}; allowed are powers of two", where, alignment);
  }
  std::vector<TensorInfo> infos;
  for (uint64_t i = 0; i < tensors; ++i) infos.push_back(take_tensor(in, where, alignment));

  const uint64_t data = (in.at() + alignment - 1) / alignment * alignment;
  const uint64_t data_bytes = data <= file_.bytes().size() ? file_.bytes().size() - data : 0;
  std::sort(infos.begin(), infos.end(), [](const TensorInfo& a, const TensorInfo& b) { return a.offset < b.offset; });
  uint64_t end = 0;
  for (TensorInfo& info : infos) {
    const std::string name = clipped(info.tensor.name);
    if (info.offset < end) fail(Fault::bad_data, "{}: the data of {} overlaps another tensor's", where, name);
    if (info.offset > data_bytes || info.bytes > data_bytes - info.offset) {
      fail(Fault::bad_data,
           "{}: the data of {} ends at {} but the file has {} bytes of data: the file is cut off, fetch it again",
           where, name, info.offset + info.bytes, data_bytes);
    }
    end = info.offset + info.bytes;
    info.tensor.bytes = file_.bytes().subspan(data + info.offset, info.bytes);
    if (!index_.emplace(info.tensor.name, tensors_.size()).second)
      fail(Fault::bad_data, "{}: the tensor {} stands twice", where, name);
    tensors_.push_back(std::move(info.tensor));
  }
}

const GgufTensor* GgufFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

void GgufFile::advise_done(const GgufTensor& tensor) const {
  file_.advise_done(static_cast<size_t>(tensor.bytes.data() - file_.bytes().data()), tensor.bytes.size());
}

template <typename T>
const T* GgufFile::value(const std::string& key, const char* type) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return nullptr;
  const T* value = std::get_if<T>(&found->second);
  if (value == nullptr) fail(Fault::bad_data, "{}: the key {} is not {}", path().string(), key, type);
  return value;
}

namespace {

template <typename T>
T value_or(const T* value, const std::optional<T>& absent, const fs::path& path, const std::string& key) {
  if (value != nullptr) return *value;
  if (absent) return *absent;
  fail(Fault::bad_data, "{}: the key {} is missing", path.string(), key);
}

void check_utf8(const std::string& text, const fs::path& path, const std::string& key) {
  if (is_utf8(text)) return;
  fail(Fault::bad_data, "{}: the key {} holds text that is not UTF-8, as the format has it; the file is damaged",
       path.string(), key);
}

}  // namespace

int64_t GgufFile::integer(const std::string& key, std::optional<int64_t> absent) const {
  return value_or(value<int64_t>(key, "a whole number"), absent, path(), key);
}
double GgufFile::number(const std::string& key, std::optional<double> absent) const {
  return value_or(value<double>(key, "a real number"), absent, path(), key);
}
bool GgufFile::flag(const std::string& key, bool absent) const {
  return value_or(value<bool>(key, "true or false"), std::optional<bool>(absent), path(), key);
}
std::string GgufFile::text(const std::string& key, std::optional<std::string> absent) const {
  const std::string text = value_or(value<std::string>(key, "a string"), absent, path(), key);
  check_utf8(text, path(), key);
  return text;
}
const std::vector<std::string>& GgufFile::texts(const std::string& key) const {
  const auto* found = value<std::vector<std::string>>(key, "a list of strings");
  if (found == nullptr) fail(Fault::bad_data, "{}: the key {} is missing", path().string(), key);
  for (const std::string& text : *found) check_utf8(text, path(), key);
  return *found;
}
const std::vector<int64_t>& GgufFile::integers(const std::string& key) const {
  const auto* found = value<std::vector<int64_t>>(key, "a list of whole numbers");
  if (found == nullptr) fail(Fault::bad_data, "{}: the key {} is missing", path().string(), key);
  return *found;
}

}  // namespace drover
