#include "data/bpe.h"

#include <algorithm>
#include <tuple>

namespace drover {

Bpe::Bpe(const std::vector<std::pair<std::string, int32_t>>& tokens, const std::vector<Merge>& merges, bool whole_first)
    : merges_(merges) {
  byte_ids_.fill(-1);
  for (const auto& [bytes, id] : tokens) {
    if (bytes.size() == 1) byte_ids_[static_cast<unsigned char>(bytes[0])] = id;
    if (whole_first) whole_.emplace(bytes, id);
  }
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

void Bpe::encode(std::string_view piece, std::vector<int32_t>& ids, std::vector<size_t>* begins, size_t offset) const {
  const auto emit = [&](int32_t id, size_t begin) {
    ids.push_back(id);
    if (begins) begins->push_back(offset + begin);
  };
  if (!whole_.empty()) {
    const auto found = whole_.find(std::string(piece));
    if (found != whole_.end()) return emit(found->second, 0);
  }
  if (const auto known = known_.find(piece); !known.empty()) {
    for (const Merges::Symbol& symbol : known) emit(symbol.id, symbol.begin);
    return;
  }
  std::vector<Merges::Symbol> symbols;
  symbols.reserve(piece.size());
  for (size_t i = 0; i < piece.size(); ++i) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(piece[i])];
    if (id >= 0) symbols.push_back({id, static_cast<uint32_t>(i)});
  }
  merges_.join(symbols);
  known_.keep(piece, symbols);
  for (const Merges::Symbol& symbol : symbols) emit(symbol.id, symbol.begin);
}

}  // namespace drover
