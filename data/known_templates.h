// The original chat templates that native code renders, known by the hash of their text.
#pragma once
#include <optional>
#include <string>

#include "data/chat_template.h"

namespace drover {

// `hash` as InterpretedTemplate::hash_of gives it; nothing for a text that is not known.
std::optional<ChatTemplate> known_template(const std::string& hash);

}  // namespace drover
