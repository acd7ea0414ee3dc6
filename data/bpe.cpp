#include "data/bpe.h"

#include <algorithm>
#include <queue>
#include <tuple>

namespace drover {

namespace {

uint64_t key_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// Symbols form a linked list over one array, in which only `next` and `previous` change.
struct Symbol {
  int32_t id;
  uint32_t begin;  // of its first byte in the piece
  int64_t previous, next;
};

// A pair that could be joined; stale once either of its symbols has changed.
struct Candidate {
  int32_t rank;
  int64_t at;
  int32_t left, right, id;
  bool operator<(const Candidate& other) const { return std::tie(rank, at) > std::tie(other.rank, other.at); }
};

}  // namespace

Bpe::Bpe(const std::vector<std::pair<std::string, int32_t>>& tokens, const std::vector<Merge>& merges,
         bool whole_first) {
  byte_ids_.fill(-1);
  for (const auto& [bytes, id] : tokens) {
    if (bytes.size() == 1) byte_ids_[static_cast<unsigned char>(bytes[0])] = id;
    if (whole_first) whole_.emplace(bytes, id);
  }
  int32_t rank = 0;
  merges_.reserve(merges.size());
  // Of two merges of the same pair the later counts, as in Hugging Face's map.
  for (const Merge& m : merges) merges_.insert_or_assign(key_of(m.left, m.right), Joined{rank++, m.joined});
}

std::vector<Bpe::Merge> Bpe::implied_merges(const std::vector<std::pair<std::string, int32_t>>& tokens) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (const auto& [bytes, id] : tokens) ids.emplace(bytes, id);
  std::vector<Merge> merges;
  for (const auto& [bytes, id] : tokens) {
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      const auto left = ids.find(std::string_view(bytes).substr(0, cut));
      const auto right = ids.find(std::string_view(bytes).substr(cut));
      if (left != ids.end() && right != ids.end()) merges.push_back({left->second, right->second, id});
    }
  }
  std::sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tie(a.joined, a.left, a.right) < std::tie(b.joined, b.left, b.right);
  });
  return merges;
}

bool Bpe::knows_all_bytes() const { return std::count(byte_ids_.begin(), byte_ids_.end(), -1) == 0; }

const Bpe::Joined* Bpe::joined(int32_t left, int32_t right) const {
  const auto found = merges_.find(key_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::encode(std::string_view piece, std::vector<int32_t>& ids, std::vector<size_t>* begins, size_t offset) const {
  const auto emit = [&](int32_t id, size_t begin) {
    ids.push_back(id);
    if (begins) begins->push_back(offset + begin);
  };
  if (!whole_.empty()) {
    const auto found = whole_.find(std::string(piece));
    if (found != whole_.end()) return emit(found->second, 0);
  }
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  for (size_t i = 0; i < piece.size(); ++i) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(piece[i])];
    const int64_t n = static_cast<int64_t>(symbols.size());
    if (id >= 0) symbols.push_back({id, static_cast<uint32_t>(i), n - 1, n + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;
  const auto symbol = [&](int64_t at) -> Symbol& { return symbols[static_cast<size_t>(at)]; };

  std::priority_queue<Candidate> candidates;
  const auto consider = [&](int64_t at) {
    if (at < 0 || symbol(at).next < 0) return;
    const int32_t left = symbol(at).id, right = symbol(symbol(at).next).id;
    if (const Joined* j = joined(left, right)) candidates.push({j->rank, at, left, right, j->id});
  };
  for (int64_t at = 0; at >= 0; at = symbol(at).next) consider(at);
  while (!candidates.empty()) {
    const Candidate c = candidates.top();
    candidates.pop();
    Symbol& left = symbol(c.at);
    if (left.id != c.left || left.next < 0 || symbol(left.next).id != c.right) continue;
    Symbol& right = symbol(left.next);
    left.id = c.id;
    left.next = right.next;
    right.id = -1;  // no candidate that begins here holds any more
    if (left.next >= 0) symbol(left.next).previous = c.at;
    consider(left.previous);
    consider(c.at);
  }
  for (int64_t at = 0; at >= 0; at = symbol(at).next) emit(symbol(at).id, symbol(at).begin);
}

}  // namespace drover
