// F32, F16, BF16; Q4_0: d·(q − 8); Q4_1: d·q + m; Q8_0: d·q, with fp16 d and m for each 32 weights.
#include "model/files/gguf_types.h"

#include <cstring>

#include "kernels/base/error.h"
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

void q8_0(const std::byte* block, float* out) {
  const float d = half_at(block);
  for (int j = 0; j < kBlock; ++j) out[j] = static_cast<float>(static_cast<int8_t>(block[2 + j])) * d;
}

}  // namespace

bool gguf_supported(uint32_t type) { return type <= 3 || type == 8 || type == 30; }

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

GgufBlock gguf_block(GgufType type) {
  switch (type) {
    case GgufType::f32: return {1, 4};
    case GgufType::f16:
    case GgufType::bf16: return {1, 2};
    case GgufType::q4_0: return {kBlock, 18};
    case GgufType::q4_1: return {kBlock, 20};
    case GgufType::q8_0: return {kBlock, 34};
  }
  require(false, "a supported type has a block");
  return {};
}

void dequantise(const GgufTensor& tensor, int64_t begin, int64_t count, float* out) {
  const GgufBlock block = gguf_block(tensor.type);
  require(begin >= 0 && count >= 0 && begin + count <= tensor.size() && begin % block.weights == 0 &&
              count % block.weights == 0,
          "whole blocks inside the tensor are dequantised");
  const std::byte* from = tensor.bytes.data() + begin / block.weights * block.bytes;
  switch (tensor.type) {
    case GgufType::f32: return convert(StoredType::f32, from, count, DType::f32, out);
    case GgufType::f16: return convert(StoredType::f16, from, count, DType::f32, out);
    case GgufType::bf16: return convert(StoredType::bf16, from, count, DType::f32, out);
    default: break;
  }
  const auto one = tensor.type == GgufType::q4_0 ? q4_0 : tensor.type == GgufType::q4_1 ? q4_1 : q8_0;
  for (int64_t i = 0; i < count; i += block.weights, from += block.bytes) one(from, out + i);
}

}  // namespace drover
