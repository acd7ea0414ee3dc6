#include "data/words.h"

#include <algorithm>

namespace drover {

namespace {

// Before a text that is not empty; it comes from where that begins.
void prepend(Normalized& n, const std::string& content) {
  if (n.text.empty()) return;
  n.text.insert(0, content);
  n.origins.insert(n.origins.begin(), content.size(), n.origins.front());
}

void replace(Normalized& n, const std::string& pattern, const std::string& content) {
  if (n.text.find(pattern) == std::string::npos) return;
  Normalized out;
  out.text.reserve(n.text.size() * 2);
  out.origins.reserve(n.text.size() * 2);
  for (size_t at = 0; at < n.text.size();) {
    const size_t found = std::min(n.text.find(pattern, at), n.text.size());
    out.text.append(n.text, at, found - at);
    out.origins.insert(out.origins.end(), n.origins.begin() + static_cast<std::ptrdiff_t>(at),
                       n.origins.begin() + static_cast<std::ptrdiff_t>(found));
    if (found == n.text.size()) break;
    out.text += content;
    out.origins.insert(out.origins.end(), content.size(), n.origins[found]);
    at = found + pattern.size();
  }
  n = std::move(out);
}

Normalized copy_of(const Stretch& stretch) {
  Normalized n{std::string(stretch.text), std::vector<size_t>(stretch.text.size())};
  for (size_t i = 0; i < n.origins.size(); ++i) n.origins[i] = stretch.origin(i);
  return n;
}

}  // namespace

std::optional<Normalized> ByteLevelWords::normalized(const Stretch& /*stretch*/) const { return std::nullopt; }

void ByteLevelWords::encode(const Stretch& stretch, std::vector<int32_t>& ids, std::vector<size_t>* begins) const {
  size_t offset = stretch.offset;
  for (std::string_view piece : pre_.split(stretch.text)) {
    bpe_.encode(piece, ids, begins, offset);
    offset += piece.size();
  }
}

std::optional<Normalized> MarkedWords::normalized(const Stretch& stretch) const {
  if (steps_.empty()) return std::nullopt;
  Normalized n = copy_of(stretch);
  for (const Step& step : steps_) {
    if (step.kind == Step::Kind::prepend) {
      prepend(n, step.content);
    } else {
      replace(n, step.pattern, step.content);
    }
  }
  return n;
}

void MarkedWords::encode(const Stretch& stretch, std::vector<int32_t>& ids, std::vector<size_t>* begins) const {
  if (stretch.text.empty()) return;
  if (!metaspace_) return encode_piece(stretch, ids, begins);
  const std::string& mark = metaspace_->mark;
  Normalized n = copy_of(stretch);
  replace(n, " ", mark);
  const bool wanted = metaspace_->prepend == Metaspace::Prepend::always ||
                      (metaspace_->prepend == Metaspace::Prepend::first && stretch.origin(0) == 0);
  if (wanted && !n.text.starts_with(mark)) prepend(n, mark);
  const Stretch marked{n.text, n.origins.data()};
  size_t begin = 0;
  while (begin < n.text.size()) {
    const size_t end = metaspace_->split ? std::min(n.text.find(mark, begin + 1), n.text.size()) : n.text.size();
    encode_piece(marked.part(begin, end), ids, begins);
    begin = end;
  }
}

void MarkedWords::encode_piece(const Stretch& piece, std::vector<int32_t>& ids, std::vector<size_t>* begins) const {
  std::vector<Merges::Symbol> symbols;
  bpe_.encode(piece.text, symbols);
  for (const Merges::Symbol& symbol : symbols) {
    ids.push_back(symbol.id);
    if (begins) begins->push_back(piece.origin(symbol.begin));
  }
}

}  // namespace drover
