// The tokenizer that a GGUF file describes, as the files of a Hugging Face directory.
#pragma once
#include <string>

#include "model/config.h"
#include "model/files/gguf.h"

namespace drover {

struct TokenizerFiles {
  std::string tokenizer, tokenizer_config, generation_config;  // JSON texts
};

// bad_data naming tokenizer.ggml.model or .pre where it is not byte-level BPE of a kind in gguf_pre_tokenizer.h.
TokenizerFiles gguf_tokenizer(const GgufFile& file, const ModelConfig& config);

}  // namespace drover
