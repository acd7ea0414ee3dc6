#include "data/pre_tokenizer.h"

#include <string>

namespace drover {

namespace {

std::string pattern_of(PreTokenizer::Kind kind) {
  if (kind == PreTokenizer::Kind::llama3) {
    return with_classes(
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nLETTERNUMBER]?[LETTER]+|[NUMBER]{1,3}| ?[^SPACELETTERNUMBER]+[\r\n]*|[SPACE]*[\r\n]+|)"
        R"([SPACE]+(?![^SPACE])|[SPACE]+)");
  }
  return with_classes(
      R"('s|'t|'re|'ve|'m|'ll|'d| ?[LETTER]+| ?[NUMBER]+| ?[^SPACELETTERNUMBER]+|[SPACE]+(?![^SPACE])|[SPACE]+)");
}

// Calls `inside` on every match and `between` on what lies before, between and after them, in order.
template <typename Inside, typename Between>
void for_each(const TextPattern::Matcher& matcher, std::string_view text, Inside&& inside, Between&& between) {
  size_t at = 0;
  while (at < text.size()) {
    const auto found = matcher.find(text, at);
    if (!found) break;
    if (found->begin > at) between(text.substr(at, found->begin - at));
    inside(text.substr(found->begin, found->end - found->begin));
    at = found->end;
  }
  if (at < text.size()) between(text.substr(at));
}

}  // namespace

PreTokenizer::PreTokenizer(Kind kind) : pattern_(pattern_of(kind)) {
  if (kind == Kind::digits_gpt2) digits_.emplace(with_classes("[NUMBERLATER]"));
}

std::vector<std::string_view> PreTokenizer::split(std::string_view text) const {
  std::vector<std::string_view> pieces;
  const auto keep = [&](std::string_view piece) { pieces.push_back(piece); };
  const TextPattern::Matcher words(pattern_);
  if (!digits_) {
    for_each(words, text, keep, keep);
    return pieces;
  }
  // What lies between digits is split as a text of its own, so a look-ahead ends at the digit.
  for_each(TextPattern::Matcher(*digits_), text, keep,
           [&](std::string_view between) { for_each(words, between, keep, keep); });
  return pieces;
}

}  // namespace drover
