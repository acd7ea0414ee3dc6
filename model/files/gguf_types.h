// Number types of GGUF tensors: plain numbers, or blocks of 32 or 256 weights with their scales.
#pragma once
#include <string>

#include "model/files/gguf.h"

namespace drover {

struct GgufBlock {
  int64_t weights = 1, bytes = 0;
};

bool gguf_supported(uint32_t type);
std::string gguf_types_read();  // "F32, F16, …"
bool is_quantised(GgufType type);
std::string gguf_type_name(uint32_t type);  // "Q4_K"; "type 77" where unknown
GgufBlock gguf_block(GgufType type);

}  // namespace drover
