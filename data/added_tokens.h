// Tokens that are found in a text before it is cut into words: control tokens, and words that were added to a
// vocabulary. As Hugging Face's: the leftmost first, of those the longest, none across another.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/text_pattern.h"

namespace drover {

struct AddedToken {
  std::string spelling;
  int32_t id = 0;
  bool special = true;
  bool normalized = false;   // looked for, normalized, in the normalized text, once the others are found
  bool lstrip = false;       // takes the white space before it with it
  bool rstrip = false;       // and that behind it
  bool single_word = false;  // only where no part of a word touches it
};

class AddedTokens {
 public:
  struct Found {
    const AddedToken* token = nullptr;
    size_t begin = 0, end = 0;  // of its spelling
  };

  // `spelling`: as the text holds it, the token's own or that normalized; not empty.
  void add(const AddedToken& token, std::string spelling) {
    std::vector<Entry>& same = by_first_byte_[static_cast<unsigned char>(spelling.front())];
    const auto place = std::ranges::upper_bound(same, spelling.size(), std::greater<>(),
                                                [](const Entry& e) { return e.spelling.size(); });
    same.insert(place, {std::move(spelling), token});
  }

  // Calls found(Found) and between(begin, end), which is not empty, in order. What accept(Found) denies is not looked
  // for; what `passes(token)` denies is text that no other token may share.
  template <typename Accept, typename Passes, typename Between, typename OnFound>
  void split(std::string_view text, const Accept& accept, const Passes& passes, const Between& between,
             const OnFound& on_found) const {
    size_t plain = 0;
    for (size_t at = 0; at < text.size();) {
      const Found found = longest(text, at, accept);
      if (found.token == nullptr) {
        ++at;
        continue;
      }
      at = found.end;
      const AddedToken& token = *found.token;
      if (!passes(token) || (token.single_word && !stands_alone(text, found))) continue;
      const size_t begin = token.lstrip ? found.begin - trailing_space(text.substr(0, found.begin)) : found.begin;
      if (plain < begin) between(plain, begin);
      on_found(found);
      plain = std::max(plain, token.rstrip ? found.end + leading_space(text.substr(found.end)) : found.end);
    }
    if (plain < text.size()) between(plain, text.size());
  }

 private:
  struct Entry {
    std::string spelling;
    AddedToken token;
  };

  template <typename Accept>
  Found longest(std::string_view text, size_t at, const Accept& accept) const {
    for (const Entry& e : by_first_byte_[static_cast<unsigned char>(text[at])]) {
      const Found found{&e.token, at, at + e.spelling.size()};
      if (text.substr(at).starts_with(e.spelling) && accept(found)) return found;
    }
    return {};
  }

  static bool stands_alone(std::string_view text, const Found& found) {
    return !ends_with_word(text.substr(0, found.begin)) && !begins_with_word(text.substr(found.end));
  }

  std::array<std::vector<Entry>, 256> by_first_byte_;  // the longest first
};

}  // namespace drover
