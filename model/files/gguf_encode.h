// Numbers → the bytes of a GGUF tensor, as ggml's reference writes them:
//   F32, F16, BF16: to the nearest, ties to even
//   Q8_0: blocks of 32; d = max|x| / 127, q = round(x / d), ties away from zero; d is stored in fp16
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "model/files/gguf.h"

namespace drover {

// "bf16", "f16", "q8_0", as llama.cpp's converter calls them; nothing for other words.
std::optional<GgufType> gguf_outtype(const std::string& word);
std::string gguf_outtype_name(GgufType type);
int gguf_file_type(GgufType type);  // general.file_type

// `values` are whole rows of the tensor `name`. bad_data where one is no number or more than the type can hold.
std::vector<std::byte> encode_gguf(GgufType type, const std::vector<float>& values, const std::string& name);

}  // namespace drover
