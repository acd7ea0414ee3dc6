// F32, F16, BF16; Q4_0: d·(q − 8); Q4_1: d·q + m; Q5_0: d·(q − 16); Q5_1: d·q + m; Q8_0: d·q, with fp16 d and m for
// each 32 weights. The blocks of 256 are in gguf_super_blocks.h.
#include "model/files/gguf_types.h"

#include <array>
#include <cstring>

#include "kernels/base/error.h"
#include "model/files/gguf_super_blocks.h"
#include "model/files/stored_type.h"

namespace drover {

namespace {

constexpr int64_t kBlock = 32;

float half_at(const std::byte* at) {
  uint16_t bits;
  std::memcpy(&bits, at, 2);
  return float_of_half(bits);
}

// Low nibbles are the first sixteen weights, high nibbles the other sixteen.
int low(std::byte b) { return std::to_integer<int>(b) & 15; }
int high(std::byte b) { return std::to_integer<int>(b) >> 4; }

void q4_0(const std::byte* block, float* out) {
  const float d = half_at(block);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>(low(block[2 + j]) - 8);
    out[j + 16] = d * static_cast<float>(high(block[2 + j]) - 8);
  }
}

void q4_1(const std::byte* block, float* out) {
  const float d = half_at(block), m = half_at(block + 2);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>(low(block[4 + j])) + m;
    out[j + 16] = d * static_cast<float>(high(block[4 + j])) + m;
  }
}

// The fifth bits of 32 weights, in their order.
uint32_t fifth_bits(const std::byte* at) {
  uint32_t bits;
  std::memcpy(&bits, at, 4);
  return bits;
}

void q5_0(const std::byte* block, float* out) {
  const float d = half_at(block);
  const uint32_t fifth = fifth_bits(block + 2);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>((low(block[6 + j]) | static_cast<int>(fifth >> j & 1) << 4) - 16);
    out[j + 16] = d * static_cast<float>((high(block[6 + j]) | static_cast<int>(fifth >> (j + 16) & 1) << 4) - 16);
  }
}

void q5_1(const std::byte* block, float* out) {
  const float d = half_at(block), m = half_at(block + 2);
  const uint32_t fifth = fifth_bits(block + 4);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>(low(block[8 + j]) | static_cast<int>(fifth >> j & 1) << 4) + m;
    out[j + 16] = d * static_cast<float>(high(block[8 + j]) | static_cast<int>(fifth >> (j + 16) & 1) << 4) + m;
  }
}

void q8_0(const std::byte* block, float* out) {
  const float d = half_at(block);
  for (int j = 0; j < kBlock; ++j) out[j] = static_cast<float>(static_cast<int8_t>(block[2 + j])) * d;
}

struct Format {
  GgufType type;
  GgufBlock block;
  void (*read)(const std::byte* block, float* out);  // none: plain numbers
};

constexpr std::array kFormats = {
    Format{GgufType::f32, {1, 4}, nullptr},
    Format{GgufType::f16, {1, 2}, nullptr},
    Format{GgufType::bf16, {1, 2}, nullptr},
    Format{GgufType::q4_0, {kBlock, 18}, q4_0},
    Format{GgufType::q4_1, {kBlock, 20}, q4_1},
    Format{GgufType::q5_0, {kBlock, 22}, q5_0},
    Format{GgufType::q5_1, {kBlock, 24}, q5_1},
    Format{GgufType::q8_0, {kBlock, 34}, q8_0},
    Format{GgufType::q4_k, {kSuperBlock, kQ4KBytes}, q4_k},
    Format{GgufType::q5_k, {kSuperBlock, kQ5KBytes}, q5_k},
    Format{GgufType::q6_k, {kSuperBlock, kQ6KBytes}, q6_k},
};

const Format* find_format(uint32_t type) {
  for (const Format& format : kFormats) {
    if (static_cast<uint32_t>(format.type) == type) return &format;
  }
  return nullptr;
}

const Format& format_of(GgufType type) {
  const Format* format = find_format(static_cast<uint32_t>(type));
  require(format != nullptr, "a tensor's type is supported");
  return *format;
}

}  // namespace

bool gguf_supported(uint32_t type) { return find_format(type) != nullptr; }
bool is_quantised(GgufType type) { return format_of(type).read != nullptr; }

std::string gguf_types_read() {
  std::string names;
  for (const Format& format : kFormats)
    names += (names.empty() ? "" : ", ") + gguf_type_name(static_cast<uint32_t>(format.type));
  return names;
}

std::string gguf_type_name(uint32_t type) {
  static const std::map<uint32_t, const char*> names = {
      {0, "F32"},      {1, "F16"},     {2, "Q4_0"},     {3, "Q4_1"},   {6, "Q5_0"},    {7, "Q5_1"},   {8, "Q8_0"},
      {9, "Q8_1"},     {10, "Q2_K"},   {11, "Q3_K"},    {12, "Q4_K"},  {13, "Q5_K"},   {14, "Q6_K"},  {15, "Q8_K"},
      {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},
      {23, "IQ4_XS"},  {24, "I8"},     {25, "I16"},     {26, "I32"},   {27, "I64"},    {28, "F64"},   {29, "IQ1_M"},
      {30, "BF16"},    {34, "TQ1_0"},  {35, "TQ2_0"},   {39, "MXFP4"}};
  const auto found = names.find(type);
  return found == names.end() ? fmt::format("type {}", type) : found->second;
}

GgufBlock gguf_block(GgufType type) { return format_of(type).block; }

void dequantise(const GgufTensor& tensor, int64_t begin, int64_t count, float* out) {
  const Format& format = format_of(tensor.type);
  const GgufBlock block = format.block;
  require(begin >= 0 && count >= 0 && begin + count <= tensor.size() && begin % block.weights == 0 &&
              count % block.weights == 0,
          "whole blocks inside the tensor are dequantised");
  const std::byte* from = tensor.bytes.data() + begin / block.weights * block.bytes;
  if (tensor.type == GgufType::f32) return convert(StoredType::f32, from, count, DType::f32, out);
  if (tensor.type == GgufType::f16) return convert(StoredType::f16, from, count, DType::f32, out);
  if (tensor.type == GgufType::bf16) return convert(StoredType::bf16, from, count, DType::f32, out);
  for (int64_t i = 0; i < count; i += block.weights, from += block.bytes) format.read(from, out + i);
}

}  // namespace drover
