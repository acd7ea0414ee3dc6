// The original chat templates that native code renders, known by the hash of their text.
#pragma once
#include <optional>
#include <string>

#include "data/chat_template.h"

namespace drover {

// `hash` as InterpretedTemplate::hash_of gives it; nothing for a text that is not known.
std::optional<ChatTemplate> known_template(const std::string& hash);

// Jinja for a template that the recipe names and that has no text of its own: it renders plain dialogs as native code
// does, and is itself known.
std::string template_text_of(const ChatTemplate& chat);

}  // namespace drover
