// Characters of valid UTF-8 as code points, and their case as Python has it.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace drover::jinja {

uint32_t code_point(std::string_view character);  // of one character
void append_utf8(uint32_t code, std::string& out);

bool is_cased(uint32_t code);
// Nothing where the other case has several characters, is a title case, or depends on the word.
std::optional<uint32_t> upper_case(uint32_t code);
std::optional<uint32_t> lower_case(uint32_t code);

}  // namespace drover::jinja
