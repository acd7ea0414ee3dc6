#include "data/character_bpe.h"

#include <algorithm>
#include <charconv>

namespace drover {

namespace {

size_t length_of_character(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

uint32_t key_of(std::string_view character) {
  uint32_t key = 0;
  for (size_t i = 0; i < character.size(); ++i) {
    key |= static_cast<uint32_t>(static_cast<unsigned char>(character[i])) << (8 * i);
  }
  return key;
}

}  // namespace

std::optional<unsigned char> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  unsigned char byte = 0;
  const auto [stop, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  if (error != std::errc() || stop != token.data() + 5) return std::nullopt;
  return byte;
}

CharacterBpe::CharacterBpe(const std::vector<std::pair<std::string, int32_t>>& tokens, const std::vector<Merge>& merges,
                           const Rules& rules)
    : merges_(merges), rules_(rules) {
  byte_ids_.fill(-1);
  for (const auto& [text, id] : tokens) {
    if (text.empty()) continue;
    if (text.size() == length_of_character(text[0])) characters_[key_of(text)] = id;
    const auto byte = byte_of_token(text);
    // Looked for as <0xAB>: digits above 9 are capital letters.
    if (byte && std::ranges::none_of(text.substr(3, 2), [](char c) { return c >= 'a'; })) byte_ids_[*byte] = id;
    if (rules.whole_first) whole_.emplace(text, id);
  }
}

bool CharacterBpe::add_bytes(std::string_view character, uint32_t begin, std::vector<Merges::Symbol>& out) const {
  const auto id_of = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
  if (std::ranges::any_of(character, [&](char byte) { return id_of(byte) < 0; })) return false;
  for (char byte : character) out.push_back({id_of(byte), begin++});
  return true;
}

void CharacterBpe::encode(std::string_view piece, std::vector<Merges::Symbol>& out) const {
  if (rules_.whole_first) {
    const auto found = whole_.find(std::string(piece));
    if (found != whole_.end()) return out.push_back({found->second, 0});
  }
  std::vector<Merges::Symbol> symbols;
  symbols.reserve(piece.size());
  // An unknown token that may still grow. As in Hugging Face's, characters that fall back to bytes do not end it and
  // come before it.
  std::optional<uint32_t> unknown;
  const auto write_unknown = [&] {
    if (!unknown) return;
    symbols.push_back({*rules_.unknown, symbols.empty() ? *unknown : std::max(*unknown, symbols.back().begin)});
    unknown.reset();
  };
  for (size_t at = 0; at < piece.size();) {
    const std::string_view character = piece.substr(at, length_of_character(piece[at]));
    const uint32_t begin = static_cast<uint32_t>(at);
    at += character.size();
    const auto found = characters_.find(key_of(character));
    if (found != characters_.end()) {
      write_unknown();
      symbols.push_back({found->second, begin});
    } else if (!(rules_.byte_fallback && add_bytes(character, begin, symbols)) && rules_.unknown) {
      if (!rules_.fuse_unknown) write_unknown();
      if (!unknown) unknown = begin;
    }
  }
  write_unknown();
  merges_.join(symbols);
  out.insert(out.end(), symbols.begin(), symbols.end());
}

}  // namespace drover
