#include "model/files/stored_type.h"

#include <cstring>

namespace drover {

namespace {

struct Entry {
  const char* name;
  int64_t bytes;
};
constexpr Entry kTypes[] = {{"BOOL", 1},    {"U8", 1},          {"I8", 1},          {"F8_E5M2", 1}, {"F8_E4M3", 1},
                            {"F8_E8M0", 1}, {"F8_E4M3FNUZ", 1}, {"F8_E5M2FNUZ", 1}, {"I16", 2},     {"U16", 2},
                            {"F16", 2},     {"BF16", 2},        {"I32", 4},         {"U32", 4},     {"F32", 4},
                            {"C64", 8},     {"F64", 8},         {"I64", 8},         {"U64", 8}};

template <typename T>
T load(const std::byte* in, int64_t i) {
  T value;
  std::memcpy(&value, in + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

template <typename To, typename Read>
void fill(int64_t count, void* out, Read read) {
  To* to = static_cast<To*>(out);
  for (int64_t i = 0; i < count; ++i) to[i] = To(read(i));
}

template <typename Read>
void fill(int64_t count, DType to, void* out, Read read) {
  if (to == DType::f32) return fill<float>(count, out, read);
  require(to == DType::bf16, "stored numbers are converted to f32 or bf16");
  fill<bf16>(count, out, read);
}

}  // namespace

int64_t size_of(StoredType type) { return kTypes[static_cast<size_t>(type)].bytes; }
const char* name_of(StoredType type) { return kTypes[static_cast<size_t>(type)].name; }

std::optional<StoredType> stored_type(std::string_view name) {
  for (size_t i = 0; i < std::size(kTypes); ++i) {
    if (name == kTypes[i].name) return static_cast<StoredType>(i);
  }
  return std::nullopt;
}

StoredType stored_type(DType type) {
  switch (type) {
    case DType::f32: return StoredType::f32;
    case DType::bf16: return StoredType::bf16;
    case DType::i32: return StoredType::i32;
    case DType::f64: return StoredType::f64;
    case DType::u8: return StoredType::u8;
  }
  require(false, "a dtype has a stored type");
  return StoredType::f32;
}

bool can_convert(StoredType from) {
  return from == StoredType::f32 || from == StoredType::f16 || from == StoredType::bf16;
}

void convert(StoredType from, const std::byte* in, int64_t count, DType to, void* out) {
  if (count == 0) return;
  if (from == stored_type(to)) {
    std::memcpy(out, in, static_cast<size_t>(count * size_of(from)));
    return;
  }
  switch (from) {
    case StoredType::f32: return fill(count, to, out, [in](int64_t i) { return load<float>(in, i); });
    case StoredType::f16: return fill(count, to, out, [in](int64_t i) { return float_of_half(load<uint16_t>(in, i)); });
    case StoredType::bf16:
      return fill(count, to, out, [in](int64_t i) { return static_cast<float>(load<bf16>(in, i)); });
    default: require(false, "only f32, f16 and bf16 are converted");
  }
}

}  // namespace drover
