// Finds spellings of a tokenizer's control tokens in text that people wrote: what looks like a rendered dialog.
#pragma once
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace drover {

class SpecialSpellings {
 public:
  explicit SpecialSpellings(const Tokenizer& tokenizer);
  bool stand_in(std::string_view text) const;  // one of them at least

 private:
  std::array<std::vector<std::string>, 256> by_first_byte_;
  std::string first_bytes_;
};

}  // namespace drover
