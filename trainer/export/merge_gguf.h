// A whole model out of a base and an adapter as one GGUF file, for llama.cpp and what is built on it.
#pragma once
#include "model/files/gguf_encode.h"
#include "trainer/export/merge.h"
#include "trainer/export/text_files.h"

namespace drover {

// Matrices are W + scale·B·A, rounded once from fp32 to `type` (of q8_0 those with rows of no multiple of 32 to fp16);
// vectors are fp32. Tensors stream through; what is read back is compared with what was written (corruption), and only
// then does the file appear under its name. usage where something has that name; io where the disk has not the room,
// before anything is written; bad_data naming what a GGUF file cannot say, or a weight that the type cannot hold.
// `trained_over` as MergeSettings has it.
void merge_to_gguf(const AdapterSource& adapter, BaseWeights& base, const fs::path& file, GgufType type,
                   Backend& backend, const ModelTexts& texts, WeightsAs trained_over = WeightsAs::as_is);

}  // namespace drover
