#include "data/jinja/letters.h"

#include <locale.h>
#include <wctype.h>

#include <algorithm>
#include <array>

namespace drover::jinja {

namespace {

struct Range {
  uint32_t first, last;
};

// ß, ŉ, ǰ, the digraphs from Ǆ on, ΐ, ΰ, և, ẖ to ẚ, Greek with breathings, ligatures.
constexpr std::array<Range, 11> kNoSingleUpper{{{0xDF, 0xDF},
                                                {0x149, 0x149},
                                                {0x1F0, 0x1F0},
                                                {0x1C4, 0x1CC},
                                                {0x1F1, 0x1F3},
                                                {0x390, 0x390},
                                                {0x3B0, 0x3B0},
                                                {0x587, 0x587},
                                                {0x1E96, 0x1E9A},
                                                {0x1F50, 0x1FFF},
                                                {0xFB00, 0xFB17}}};
// İ, and Σ, which is another letter at the end of a word.
constexpr std::array<Range, 2> kNoSingleLower{{{0x130, 0x130}, {0x3A3, 0x3A3}}};

template <size_t N>
bool within(uint32_t code, const std::array<Range, N>& ranges) {
  return std::ranges::any_of(ranges, [&](const Range& r) { return code >= r.first && code <= r.last; });
}

// The same on every machine, whatever its language.
locale_t unicode() {
  static const locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  return locale;
}

}  // namespace

uint32_t code_point(std::string_view character) {
  const auto first = static_cast<unsigned char>(character[0]);
  if (first < 0x80) return first;
  uint32_t code = first & (0x7FU >> character.size());
  for (const char c : character.substr(1)) code = code << 6 | (static_cast<unsigned char>(c) & 0x3FU);
  return code;
}

void append_utf8(uint32_t code, std::string& out) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

bool is_cased(uint32_t code) { return iswupper_l(code, unicode()) != 0 || iswlower_l(code, unicode()) != 0; }

std::optional<uint32_t> upper_case(uint32_t code) {
  if (within(code, kNoSingleUpper)) return std::nullopt;
  return towupper_l(code, unicode());
}

std::optional<uint32_t> lower_case(uint32_t code) {
  if (within(code, kNoSingleLower)) return std::nullopt;
  return towlower_l(code, unicode());
}

}  // namespace drover::jinja
