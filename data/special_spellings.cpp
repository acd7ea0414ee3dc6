#include "data/special_spellings.h"

#include <algorithm>

namespace drover {

SpecialSpellings::SpecialSpellings(const Tokenizer& tokenizer) {
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string& spelling = tokenizer.raw_bytes(id);
    if (!tokenizer.is_special(id) || spelling.empty()) continue;
    by_first_byte_[static_cast<unsigned char>(spelling[0])].push_back(spelling);
    if (first_bytes_.find(spelling[0]) == std::string::npos) first_bytes_ += spelling[0];
  }
}

bool SpecialSpellings::stand_in(std::string_view text) const {
  for (size_t at = text.find_first_of(first_bytes_); at != std::string_view::npos;
       at = text.find_first_of(first_bytes_, at + 1)) {
    const auto& spellings = by_first_byte_[static_cast<unsigned char>(text[at])];
    const auto begins = [&](const std::string& spelling) { return text.substr(at).starts_with(spelling); };
    if (std::ranges::any_of(spellings, begins)) return true;
  }
  return false;
}

}  // namespace drover
