// A model's tokenizer, chat template and stop tokens as the keys tokenizer.* of a GGUF file;
// model/files/gguf_tokenizer.h is the way back.
#pragma once
#include "model/config.h"
#include "model/files/gguf_writer.h"
#include "trainer/export/text_files.h"

namespace drover {

// Byte-level BPE of a kind in model/files/gguf_pre_tokenizer.h, with a BOS before and an EOS behind every text or not.
// bad_data naming what llama.cpp would do otherwise: other kinds of tokenizer, tokens that take white space with them,
// other tokens around a text, more than three stop tokens, more tokens than the model has rows.
void write_gguf_vocabulary(GgufWriter& writer, const ModelTexts& texts, const ModelConfig& config);

}  // namespace drover
