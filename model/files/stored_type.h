// The number types that a safetensors file may hold, in the format's own order (its writer sorts by it), and their
// conversion.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "kernels/base/half.h"
#include "kernels/tensor.h"

namespace drover {

enum class StoredType : uint8_t {
  boolean,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64
};

int64_t size_of(StoredType type);      // bytes
const char* name_of(StoredType type);  // as the file spells it: "BF16"
std::optional<StoredType> stored_type(std::string_view name);
StoredType stored_type(DType type);  // each has one

bool can_convert(StoredType from);  // f32, f16, bf16
// `count` numbers, `in` of any alignment → bf16 (round to nearest even) or f32. internal where !can_convert.
void convert(StoredType from, const std::byte* in, int64_t count, DType to, void* out);

}  // namespace drover
