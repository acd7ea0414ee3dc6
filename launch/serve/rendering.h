// Prompts as the model gets them.
#pragma once
#include "launch/serve/serving.h"

namespace drover {

// By the model's chat template; ApiError where it has none or does not take the dialog, or where an id is not the
// model's.
std::vector<int32_t> render_dialog(const Serving& serving, const ServedModel& model, const openai::Dialog& dialog);

// A text, with the tokenizer's frame of a document or without. Spellings of special tokens become them, as in vLLM and
// llama.cpp: clients render dialogs by themselves, and lm-eval asks for BOS so.
std::vector<int32_t> text_ids(const Serving& serving, const std::string& text, bool framed);

// The model of that id; ApiError (404) where there is none.
ServedModelPtr find_model(const Serving& serving, const std::string& id);

}  // namespace drover
