#include "data/known_templates.h"

#include <array>
#include <stdexcept>
#include <string_view>

#include "data/interpreted_template.h"

namespace drover {

namespace {

using Family = ChatTemplate::Family;

struct Known {
  std::string_view hash;
  Family family;
  const char* default_system = nullptr;
};

constexpr const char* kSmolSystem = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

constexpr std::array kKnown{
    // Llama 3
    Known{"ba03a121d097859c7b5b9cd03af99aafe95275210d2876f642ad9929a150f122", Family::llama3},
    // Llama 3.1, Llama 3.3
    Known{"93c0e9aa3629bbd77e68dbc0f5621f6e6b23aa8d74b932595cdb8d64684526d7", Family::llama3_1},
    // Llama 3.2
    Known{"d82792f95932f1c9cef5c4bd992f171225e3bf8c7b609b4557c9e1ec96be819f", Family::llama3_1},
    // ChatML
    Known{"153280e3ff55d19da1398bdb3914ee2a51b80429bfaedde11d7d216c39db80f3", Family::chatml},
    // SmolLM2
    Known{"872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788", Family::chatml, kSmolSystem},
    // ChatML
    Known{"fcf7a096fe99a48fd9ad2b250bf9237e96e8f48bffec1c7ea4d3f225176cd40e", Family::chatml},
    // SmolLM2
    Known{"de9cde7d1b0ca0cc87459a6673e0d12fb89c070bdb24e4a30b6e4d187b226221", Family::chatml, kSmolSystem}};

// Written for Drover. An adapter that was trained with a named template carries one of them.
constexpr std::string_view kChatml =
    R"({%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}
)";
constexpr std::string_view kLlama3 =
    R"({{- '<|begin_of_text|>' }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
)";
constexpr std::string_view kLlama31 =
    R"({%- if not date_string is defined %}
{%- set date_string = '26 Jul 2024' %}
{%- endif %}
{{- '<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n' }}
{{- 'Cutting Knowledge Date: December 2023\nToday Date: ' + date_string + '\n\n' }}
{%- set turns = messages %}
{%- if messages[0]['role'] == 'system' %}
{{- messages[0]['content'] | trim }}
{%- set turns = messages[1:] %}
{%- endif %}
{{- '<|eot_id|>' }}
{%- for message in turns %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
)";

constexpr std::array kOurs{std::pair{Family::chatml, kChatml}, std::pair{Family::llama3, kLlama3},
                           std::pair{Family::llama3_1, kLlama31}};

}  // namespace

std::string template_text_of(const ChatTemplate& chat) {
  for (const auto& [family, text] : kOurs) {
    if (family == chat.family) return std::string(text);
  }
  throw std::logic_error("an interpreted template has its own text");
}

std::optional<ChatTemplate> known_template(const std::string& hash) {
  for (const auto& [family, text] : kOurs) {
    if (InterpretedTemplate::hash_of(std::string(text)) == hash) return ChatTemplate{family};
  }
  for (const Known& known : kKnown) {
    if (known.hash != hash) continue;
    ChatTemplate chat{known.family};
    if (known.default_system != nullptr) chat.default_system = known.default_system;
    return chat;
  }
  return std::nullopt;
}

}  // namespace drover
