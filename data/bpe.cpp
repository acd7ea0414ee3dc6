#include "data/bpe.h"

#include <algorithm>
#include <queue>
#include <tuple>

#include "kernels/base/error.h"

namespace drover {

namespace {
uint64_t key_of(int32_t left, int32_t right) { return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right); }
}  // namespace

Bpe::Bpe(const std::vector<std::pair<std::string, int32_t>>& tokens, const std::vector<Merge>& merges, bool whole_first) {
  std::fill(std::begin(byte_ids_), std::end(byte_ids_), -1);
  for (const auto& [bytes, id] : tokens) {
    if (bytes.size() == 1) byte_ids_[static_cast<unsigned char>(bytes[0])] = id;
    if (whole_first) whole_.emplace(bytes, id);
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (byte_ids_[byte] < 0) fail(Exit::bad_data, "the tokenizer has no token for the byte {}; only byte-level BPE is supported", byte);
  }
  int32_t rank = 0;
  merges_.reserve(merges.size());
  for (const Merge& m : merges) merges_.emplace(key_of(m.left, m.right), Joined{rank++, m.joined});
}

std::vector<Bpe::Merge> Bpe::implied_merges(const std::vector<std::pair<std::string, int32_t>>& tokens) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (const auto& [bytes, id] : tokens) ids.emplace(bytes, id);
  std::vector<Merge> merges;
  for (const auto& [bytes, id] : tokens) {
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      const auto left = ids.find(std::string_view(bytes).substr(0, cut)), right = ids.find(std::string_view(bytes).substr(cut));
      if (left != ids.end() && right != ids.end()) merges.push_back({left->second, right->second, id});
    }
  }
  std::sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tie(a.joined, a.left, a.right) < std::tie(b.joined, b.left, b.right);
  });
  return merges;
}

const Bpe::Joined* Bpe::joined(int32_t left, int32_t right) const {
  const auto found = merges_.find(key_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  if (!whole_.empty()) {
    const auto found = whole_.find(std::string(piece));
    if (found != whole_.end()) {
      ids.push_back(found->second);
      return;
    }
  }
  // Symbols form a linked list; candidates wait in a heap and are stale once either symbol has changed.
  struct Symbol {
    int32_t id, previous, next;
  };
  struct Candidate {
    int32_t rank, at, left, right, id;
    bool operator<(const Candidate& o) const { return std::tie(rank, at) > std::tie(o.rank, o.at); }
  };
  const int32_t n = static_cast<int32_t>(piece.size());
  std::vector<Symbol> symbols(piece.size());
  for (int32_t i = 0; i < n; ++i) symbols[static_cast<size_t>(i)] = {byte_ids_[static_cast<unsigned char>(piece[static_cast<size_t>(i)])], i - 1, i + 1 < n ? i + 1 : -1};
  std::priority_queue<Candidate> heap;
  const auto consider = [&](int32_t at) {
    if (at < 0 || symbols[static_cast<size_t>(at)].next < 0) return;
    const Symbol& left = symbols[static_cast<size_t>(at)];
    const Symbol& right = symbols[static_cast<size_t>(left.next)];
    if (const Joined* j = joined(left.id, right.id)) heap.push({j->rank, at, left.id, right.id, j->id});
  };
  for (int32_t i = 0; i + 1 < n; ++i) consider(i);
  while (!heap.empty()) {
    const Candidate c = heap.top();
    heap.pop();
    Symbol& left = symbols[static_cast<size_t>(c.at)];
    if (left.id != c.left || left.next < 0 || symbols[static_cast<size_t>(left.next)].id != c.right) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    left.id = c.id;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = c.at;
    consider(left.previous);
    consider(c.at);
  }
  for (int32_t i = n == 0 ? -1 : 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) ids.push_back(symbols[static_cast<size_t>(i)].id);
}

}  // namespace drover
