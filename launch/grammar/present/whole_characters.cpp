#include "launch/grammar/present/whole_characters.h"

#include <algorithm>

#include "kernels/backend.h"

namespace drover {

namespace {

struct Character {
  size_t bytes;           // 0: none begins so
  uint8_t second = 0x80;  // the least and the most of its second byte
  uint8_t most = 0xBF;
};

// Source: Unicode 15, table 3-7.
Character character_of(uint8_t first) {
  if (first < 0x80) return {1};
  if (first >= 0xC2 && first <= 0xDF) return {2};
  if (first == 0xE0) return {3, 0xA0};
  if (first == 0xED) return {3, 0x80, 0x9F};
  if (first >= 0xE1 && first <= 0xEF) return {3};
  if (first == 0xF0) return {4, 0x90};
  if (first == 0xF4) return {4, 0x80, 0x8F};
  if (first >= 0xF1 && first <= 0xF3) return {4};
  return {0};
}

}  // namespace

std::optional<std::string> WholeCharacters::pending_after(std::string_view bytes) {
  for (size_t begin = 0; begin < bytes.size();) {
    const Character c = character_of(static_cast<uint8_t>(bytes[begin]));
    if (c.bytes == 0) return {};
    for (size_t i = 1; i < c.bytes; ++i) {
      if (begin + i == bytes.size()) return std::string(bytes.substr(begin));
      const uint8_t byte = static_cast<uint8_t>(bytes[begin + i]);
      if (byte < (i == 1 ? c.second : 0x80) || byte > (i == 1 ? c.most : 0xBF)) return {};
    }
    begin += c.bytes;
  }
  return std::string();
}

WholeCharacters::WholeCharacters(const std::vector<std::string>& tokens) {
  for (size_t token = 0; token < tokens.size(); ++token) {
    if (pending_after(tokens[token]) != "") parts_.push_back({token, tokens[token]});
  }
}

void WholeCharacters::narrow(const std::string& pending, std::span<uint32_t> bits) const {
  std::vector<size_t> allowed;
  for (const auto& [token, bytes] : parts_) {
    uint32_t& word = bits[token / kBitsPerWord];
    const uint32_t bit = uint32_t{1} << token % kBitsPerWord;
    if ((word & bit) == 0) continue;
    if (pending_after(pending + bytes)) {
      allowed.push_back(token);
    } else {
      word &= ~bit;
    }
  }
  if (pending.empty()) return;
  std::ranges::fill(bits, uint32_t{0});  // no other token begins within a character
  for (const size_t token : allowed) bits[token / kBitsPerWord] |= uint32_t{1} << token % kBitsPerWord;
}

}  // namespace drover
