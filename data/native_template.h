// The known chat formats, written without their templates: ChatML (with or without a default system message),
// Llama 3.0, and Llama 3.1 to 3.3, which always state a date.
#pragma once
#include "data/chat_template.h"

namespace drover {

// Whether the family's native code writes such a dialog: turns of system, user and assistant with a text each.
bool is_plain(const std::vector<Message>& dialog, const RenderOptions& options);

// Of a plain dialog, by a known family. bad_data where the tokenizer lacks one of its control tokens.
Rendered render_native(const std::vector<Message>& dialog, const ChatTemplate& chat, const Tokenizer& tokenizer,
                       const RenderOptions& options);

}  // namespace drover
