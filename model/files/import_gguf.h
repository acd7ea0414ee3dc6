// GGUF → a Hugging Face directory: config.json, tokenizer.json, tokenizer_config.json, generation_config.json,
// model.safetensors in bf16, fp16 where the file has fp16, and fp32 where it has fp32 that bf16 would round.
#pragma once
#include "kernels/base/file.h"

namespace drover {

// Quantised weights are dequantised to fp32 and rounded to bf16 once, to nearest even; the rows of q and k go back to
// Hugging Face's order. False when `directory` already holds an import of the same file (nothing is done then). usage
// when it holds anything else; bad_data for files that are not Llama models or hold what cannot be carried over. The
// directory appears whole or not at all.
bool import_gguf(const fs::path& file, const fs::path& directory);

}  // namespace drover
