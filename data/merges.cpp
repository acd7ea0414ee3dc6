#include "data/merges.h"

#include <queue>
#include <tuple>

namespace drover {

namespace {

uint64_t key_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// A symbol's neighbours, -1 where there is none. Symbols form a linked list over one array.
struct Links {
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

Merges::Merges(const std::vector<Merge>& merges) {
  int32_t rank = 0;
  merges_.reserve(merges.size());
  for (const Merge& m : merges) merges_.insert_or_assign(key_of(m.left, m.right), Joined{rank++, m.joined});
}

const Merges::Joined* Merges::joined(int32_t left, int32_t right) const {
  const auto found = merges_.find(key_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Merges::join(std::vector<Symbol>& symbols) const {
  if (symbols.size() < 2) return;
  std::vector<Links> links(symbols.size());
  for (size_t i = 0; i < links.size(); ++i) links[i] = {static_cast<int64_t>(i) - 1, static_cast<int64_t>(i) + 1};
  links.back().next = -1;
  const auto symbol = [&](int64_t at) -> Symbol& { return symbols[static_cast<size_t>(at)]; };
  const auto link = [&](int64_t at) -> Links& { return links[static_cast<size_t>(at)]; };

  std::priority_queue<Candidate> candidates;
  const auto consider = [&](int64_t at) {
    if (at < 0 || link(at).next < 0) return;
    const int32_t left = symbol(at).id, right = symbol(link(at).next).id;
    if (const Joined* j = joined(left, right)) candidates.push({j->rank, at, left, right, j->id});
  };
  for (int64_t at = 0; at >= 0; at = link(at).next) consider(at);
  while (!candidates.empty()) {
    const Candidate c = candidates.top();
    candidates.pop();
    Links& here = link(c.at);
    if (symbol(c.at).id != c.left || here.next < 0 || symbol(here.next).id != c.right) continue;
    symbol(c.at).id = c.id;
    symbol(here.next).id = -1;  // no candidate that begins here holds any more
    here.next = link(here.next).next;
    if (here.next >= 0) link(here.next).previous = c.at;
    consider(here.previous);
    consider(c.at);
  }
  size_t kept = 0;
  for (int64_t at = 0; at >= 0; at = link(at).next) symbols[kept++] = symbol(at);
  symbols.resize(kept);
}

}  // namespace drover
