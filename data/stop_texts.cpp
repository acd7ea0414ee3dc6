#include "data/stop_texts.h"

#include <algorithm>
#include <utility>

#include "kernels/base/require.h"

namespace drover {

StopTexts::StopTexts(const std::vector<std::string>& texts) {
  for (const std::string& bytes : texts) {
    require(!bytes.empty(), "a stop text has bytes");
    Text text{.bytes = bytes, .border = {0}};
    for (size_t i = 1; i < bytes.size(); ++i) {
      text.take(bytes[i]);
      text.border.push_back(text.matched);
    }
    text.matched = 0;
    texts_.push_back(std::move(text));
  }
}

void StopTexts::Text::take(char byte) {
  while (matched > 0 && bytes[matched] != byte) matched = border[matched - 1];
  if (bytes[matched] == byte) ++matched;
}

std::string StopTexts::push(std::string_view piece) {
  size_t longest = 0;  // of what may be the beginning of a stop text
  for (size_t i = 0; i < piece.size() && !found_; ++i) {
    held_ += piece[i];
    longest = 0;
    size_t complete = 0;
    for (Text& text : texts_) {
      text.take(piece[i]);
      longest = std::max(longest, text.matched);
      if (text.matched == text.bytes.size()) complete = std::max(complete, text.matched);
    }
    if (complete == 0) continue;
    found_ = true;
    longest = 0;
    held_.resize(held_.size() - complete);
  }
  if (piece.empty()) return {};
  std::string certain = held_.substr(0, held_.size() - longest);
  held_.erase(0, certain.size());
  return certain;
}

std::string StopTexts::finish() { return std::exchange(held_, {}); }

}  // namespace drover
