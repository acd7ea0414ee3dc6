// Python's string functions on text that keeps its origins.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "data/jinja/value.h"

namespace drover::jinja {

// `characters`: what is taken away; null: white space.
Text stripped(const Text& text, const std::string* characters, bool left, bool right);
Text replaced(const Text& text, const std::string& what, const Text& by, int64_t limit);  // limit < 0: all
Text as_html(const Text& text);  // a safe text: & < > " ' become entities, as MarkupSafe writes them
// `separator`: null: runs of white space. limit < 0: none; from the right where `from_right`.
std::vector<Text> split(const Text& text, const std::string* separator, int64_t limit, bool from_right = false);
std::vector<Text> lines_of(const Text& text);  // str.splitlines()

// Refusal for letters whose other case has several characters, or depends on where they stand.
enum class Case : uint8_t {
  upper,
  lower,
  capitalized,
  title,  // as str.title() sees words: what follows a letter belongs to it
  words,  // as the filter title sees them: between white space, - ( { [ <
};
Text in_case(const Text& text, Case which);

}  // namespace drover::jinja
