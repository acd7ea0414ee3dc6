// What tokenizer.ggml.pre names: how llama.cpp cuts a text into words before byte-level BPE, next to the pre_tokenizer
// of a tokenizer.json that cuts the same. Names and what they imply are llama.cpp's.
#pragma once
#include <string>

#include "kernels/base/json.h"

namespace drover {

struct GgufPreTokenizer {
  const char* name = nullptr;
  bool ignore_merges = false;  // a word that is a token is that token
  bool adds_bos = false;       // before every text, where the file does not say
  OrderedJson pre_tokenizer;   // of tokenizer.json
};

// Null for other names.
const GgufPreTokenizer* gguf_pre_tokenizer(const std::string& name);
// By what a tokenizer.json says: its pre_tokenizer and model.ignore_merges. Null where llama.cpp's name is not known.
const GgufPreTokenizer* gguf_pre_tokenizer(const Json& pre_tokenizer, bool ignore_merges);
std::string gguf_pre_tokenizer_names();  // "smollm, llama-bpe and gpt-2"

}  // namespace drover
