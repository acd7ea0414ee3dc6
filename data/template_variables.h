// A dialog as the variables that a chat template sees. Source: huggingface/transformers, apply_chat_template.
#pragma once
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/chat_template.h"
#include "data/jinja/template.h"

namespace drover {

// messages, tools, documents, add_generation_prompt, strftime_now and the special tokens; date_string where the date is
// not RenderOptions::kDate, so that a template's own default stays.
jinja::Template::Variables template_variables(std::span<const Message> dialog, const RenderOptions& options,
                                              bool generation_prompt,
                                              std::span<const std::pair<std::string, std::string>> special_tokens);

}  // namespace drover
