#include "kernels/base/unicode.h"

#include <cstdint>

namespace drover {

namespace {

struct Reading {
  size_t length = 0;     // bytes of the character, or of the part of one that is well-formed so far
  bool whole = false;    // the character is complete
  bool cut_off = false;  // the text ends inside a character that is well-formed so far
  char32_t code = 0;
};

// What stands at the front of a text that is not empty. A byte that begins no character reads as a part of length 1.
Reading read_front(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {1, true, false, first};
  const size_t expected = first >= 0xC2 && first < 0xE0   ? 2
                          : first >= 0xE0 && first < 0xF0 ? 3
                          : first >= 0xF0 && first < 0xF5 ? 4
                                                          : 0;
  if (expected == 0) return {1};
  // The second byte's range rules out overlong forms, surrogates and what lies above U+10FFFF.
  const unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  char32_t code = first & (0x7Fu >> expected);
  for (size_t i = 1; i < expected; ++i) {
    if (i == text.size()) return {i, false, true};
    if (byte(i) < (i == 1 ? low : 0x80) || byte(i) > (i == 1 ? high : 0xBF)) return {i};
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  return {expected, true, false, code};
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

}  // namespace

size_t first_invalid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Reading r = read_front(text.substr(at));
    if (!r.whole) return at;
    at += r.length;
  }
  return text.size();
}

size_t unfinished_utf8(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    if (read_front(text.substr(text.size() - back)).cut_off) return back;
  }
  return 0;
}

std::string repair_utf8(std::string_view text) {
  std::string repaired;
  repaired.reserve(text.size());
  while (!text.empty()) {
    const Reading r = read_front(text);
    repaired += r.whole ? text.substr(0, r.length) : std::string_view("\xEF\xBF\xBD");
    text.remove_prefix(r.length);
  }
  return repaired;
}

std::string_view strip(std::string_view text) {
  size_t begin = 0, end = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const Reading r = read_front(text.substr(at));
    if (!is_space(r.code)) {
      if (!inside) begin = at;
      inside = true;
      end = at + r.length;
    }
    at += r.length;
  }
  return text.substr(begin, end - begin);
}

}  // namespace drover
