// Number types of GGUF tensors: blocks of 32 weights with their scale, or plain numbers.
#pragma once
#include <string>

#include "model/files/gguf.h"

namespace drover {

struct GgufBlock {
  int64_t weights = 1, bytes = 0;
};

bool gguf_supported(uint32_t type);
std::string gguf_type_name(uint32_t type);  // "Q4_K"; "type 77" where unknown
GgufBlock gguf_block(GgufType type);

}  // namespace drover
