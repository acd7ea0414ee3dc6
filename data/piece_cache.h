// What pieces of text became last, since words come again and again: a table of each thread for all tokenizers, in
// which a piece has one place, and the later of two that share it stays.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

#include "data/merges.h"

namespace drover {

class PieceCache {
 public:
  static constexpr size_t kLongestPiece = 30, kMostSymbols = 8;

  // The symbols of a piece, or none where they are not known.
  std::span<const Merges::Symbol> find(std::string_view piece) const {
    if (piece.size() > kLongestPiece) return {};
    const Entry& e = entry(piece);
    if (e.owner != owner_ || e.size != piece.size() || std::memcmp(e.piece, piece.data(), piece.size()) != 0) return {};
    return {e.symbols, e.count};
  }
  void keep(std::string_view piece, std::span<const Merges::Symbol> symbols) const {
    if (piece.size() > kLongestPiece || symbols.size() > kMostSymbols) return;
    Entry& e = entry(piece);
    e.owner = owner_, e.size = static_cast<uint8_t>(piece.size()), e.count = static_cast<uint8_t>(symbols.size());
    std::memcpy(e.piece, piece.data(), piece.size());
    std::ranges::copy(symbols, e.symbols);
  }

 private:
  struct Entry {
    uint64_t owner = 0;  // a tokenizer's number; 0: nobody's
    uint8_t size = 0, count = 0;
    char piece[kLongestPiece];
    Merges::Symbol symbols[kMostSymbols];
  };
  static constexpr int kPlaceBits = 13;
  static Entry& entry(std::string_view piece) {
    thread_local const auto entries = std::make_unique<std::array<Entry, size_t{1} << kPlaceBits>>();
    uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
    for (const char c : piece) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return (*entries)[(hash * 0x9e3779b97f4a7c15u) >> (64 - kPlaceBits)];
  }
  static uint64_t next_owner() {
    static std::atomic<uint64_t> last = 0;
    return ++last;
  }
  uint64_t owner_ = next_owner();
};

}  // namespace drover
