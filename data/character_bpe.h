// Byte-pair encoding over characters, as SentencePiece's tokenizers have it (Llama 2, TinyLlama, Mistral): a character
// that is no token falls back to tokens of its bytes, <0x00> to <0xFF>, and without those to the unknown token.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "data/merges.h"

namespace drover {

class CharacterBpe {
 public:
  struct Rules {
    bool whole_first = false;        // a piece that is a token is that token, whatever the merges say
    bool byte_fallback = false;      // model.byte_fallback
    bool fuse_unknown = false;       // model.fuse_unk: one unknown token for a run of them
    std::optional<int32_t> unknown;  // without one what has no token vanishes
  };
  // tokens: (text, id).
  CharacterBpe(const std::vector<std::pair<std::string, int32_t>>& tokens, const std::vector<Merge>& merges,
               const Rules& rules);

  // Appends the tokens of a piece of valid UTF-8; a symbol's `begin` is an offset in it.
  void encode(std::string_view piece, std::vector<Merges::Symbol>& out) const;

 private:
  // Appends the tokens of the character's bytes; false where one has none.
  bool add_bytes(std::string_view character, uint32_t begin, std::vector<Merges::Symbol>& out) const;

  Merges merges_;
  Rules rules_;
  std::unordered_map<uint32_t, int32_t> characters_;  // by the character's bytes, the first in the lowest place
  std::unordered_map<std::string, int32_t> whole_;
  std::array<int32_t, 256> byte_ids_;  // -1: no token
};

// The byte that a token <0x00> … <0xFF> stands for.
std::optional<unsigned char> byte_of_token(std::string_view token);

}  // namespace drover
