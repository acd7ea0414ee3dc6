#include "data/statistics.h"

#include <algorithm>
#include <bit>

namespace drover {

namespace {

void count_answers(const Document& document, std::span<const int32_t> ends, StoreStatistics& statistics) {
  for (size_t i = 0; i < document.ids.size(); ++i) {
    const bool last = i + 1 == document.ids.size() || document.trained[i + 1] == 0;
    if (document.trained[i] == 0 || !last) continue;
    ++statistics.answers;
    if (std::ranges::find(ends, document.ids[i]) != ends.end()) ++statistics.ended;
  }
}

}  // namespace

StoreStatistics statistics(const TokenStore& store, int64_t max_length, std::span<const int32_t> ends) {
  StoreStatistics s;
  if (store.documents() == 0) return s;
  std::vector<int64_t> sizes;
  store.each_document([&](const Document& document) {
    sizes.push_back(static_cast<int64_t>(document.ids.size()));
    count_answers(document, ends, s);
    const size_t bucket = static_cast<size_t>(std::bit_width(document.ids.size())) - 1;
    s.lengths.resize(std::max(s.lengths.size(), bucket + 1));
    ++s.lengths[bucket];
  });
  std::ranges::sort(sizes);
  s.shortest = sizes.front(), s.median = sizes[sizes.size() / 2], s.longest = sizes.back();
  s.filled = static_cast<double>(store.tokens()) / static_cast<double>(store.rows() * max_length);
  return s;
}

}  // namespace drover
