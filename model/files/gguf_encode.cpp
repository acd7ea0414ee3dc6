#include "model/files/gguf_encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/base/error.h"
#include "model/files/gguf_types.h"
#include "model/files/stored_type.h"

namespace drover {

namespace {

struct OutType {
  GgufType type;
  const char* name;
  int file_type;
};
constexpr OutType kOutTypes[] = {{GgufType::bf16, "bf16", 32}, {GgufType::f16, "f16", 1}, {GgufType::q8_0, "q8_0", 7}};

const OutType& out_type(GgufType type) {
  for (const OutType& each : kOutTypes) {
    if (each.type == type) return each;
  }
  fail(Fault::internal, "whole models are written as bf16, f16 or q8_0");
}

template <typename T>
void put(std::byte*& at, T value) {
  std::memcpy(at, &value, sizeof value);
  at += sizeof value;
}

[[noreturn]] void too_large(float value, GgufType type, const std::string& name) {
  if (!std::isfinite(value)) fail(Fault::bad_data, "{} holds {}, which is no weight; nothing was written", name, value);
  fail(Fault::bad_data, "{} holds {:.6g}, more than {} can; nothing was written{}", name, value,
       gguf_type_name(static_cast<uint32_t>(type)), type == GgufType::bf16 ? "" : ". --outtype bf16 holds it");
}

// Whether a half's or a bf16's exponent is that of infinity.
bool overflows(uint16_t bits, uint16_t exponent) { return (bits & exponent) == exponent; }

void put_q8_0(std::byte*& at, const float* x, int64_t weights, const std::string& name) {
  float largest = 0;
  for (int64_t i = 0; i < weights; ++i) {
    if (!std::isfinite(x[i])) too_large(x[i], GgufType::q8_0, name);
    largest = std::max(largest, std::abs(x[i]));
  }
  const float d = largest / 127, inverse = std::isfinite(1 / d) ? 1 / d : 0;  // none for a block of zeros
  const uint16_t scale = half_of_float(d);
  if (overflows(scale, 0x7C00)) too_large(largest, GgufType::q8_0, name);
  put(at, scale);
  for (int64_t i = 0; i < weights; ++i) put(at, static_cast<int8_t>(std::round(x[i] * inverse)));
}

}  // namespace

std::optional<GgufType> gguf_outtype(const std::string& word) {
  for (const OutType& each : kOutTypes) {
    if (word == each.name) return each.type;
  }
  return std::nullopt;
}

std::string gguf_outtype_name(GgufType type) { return out_type(type).name; }
int gguf_file_type(GgufType type) { return out_type(type).file_type; }

std::vector<std::byte> encode_gguf(GgufType type, const std::vector<float>& values, const std::string& name) {
  const GgufBlock block = gguf_block(type);
  const auto count = static_cast<int64_t>(values.size());
  require(count % block.weights == 0, "whole blocks are written");
  std::vector<std::byte> bytes(static_cast<size_t>(count / block.weights * block.bytes));
  std::byte* at = bytes.data();
  for (int64_t i = 0; i < count; i += block.weights) {
    const float value = values[static_cast<size_t>(i)];
    switch (type) {
      case GgufType::f32:
        if (!std::isfinite(value)) too_large(value, type, name);
        put(at, value);
        break;
      case GgufType::f16: {
        const uint16_t bits = half_of_float(value);
        if (overflows(bits, 0x7C00)) too_large(value, type, name);
        put(at, bits);
        break;
      }
      case GgufType::bf16: {
        const uint16_t bits = bf16(value).bits;
        if (overflows(bits, 0x7F80)) too_large(value, type, name);
        put(at, bits);
        break;
      }
      case GgufType::q8_0: put_q8_0(at, values.data() + i, block.weights, name); break;
      default: fail(Fault::internal, "{} is not written", gguf_type_name(static_cast<uint32_t>(type)));
    }
  }
  return bytes;
}

}  // namespace drover
