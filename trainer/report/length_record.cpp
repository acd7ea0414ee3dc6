#include "trainer/report/length_record.h"

#include <algorithm>

namespace drover {

namespace {

constexpr int64_t kMostBins = 40;

std::vector<LengthBin> length_bins(const std::vector<int64_t>& sorted) {
  const int64_t width = std::max<int64_t>(1, (sorted.back() + kMostBins) / kMostBins);
  std::vector<LengthBin> bins;
  for (int64_t begin = 0; begin <= sorted.back(); begin += width) bins.push_back({begin, begin + width, 0});
  for (const int64_t length : sorted) ++bins[static_cast<size_t>(length / width)].documents;
  return bins;
}

bool is_cut(const TokenStore& store, int64_t ordinal, int64_t max_length) {
  const Document document = store.document(ordinal);
  if (static_cast<int64_t>(document.ids.size()) < max_length) return false;
  return ordinal + 1 == store.documents() || !(store.document(ordinal + 1).origin == document.origin);
}

}  // namespace

LengthRecord length_record(const TokenStore& store, int64_t max_length) {
  LengthRecord record{.documents = store.documents(),
                      .rows = store.rows(),
                      .tokens = store.tokens(),
                      .trained_tokens = store.trained_tokens(0, store.documents()),
                      .max_length = max_length,
                      .rows_by_filled = std::vector<int64_t>(10),
                      .notes = store.notes()};
  if (record.documents == 0) return record;
  std::vector<int64_t> lengths;
  for (int64_t d = 0; d < store.documents(); ++d) {
    lengths.push_back(static_cast<int64_t>(store.document(d).ids.size()));
    record.cut += is_cut(store, d, max_length) ? 1 : 0;
  }
  std::ranges::sort(lengths);
  record.shortest = lengths.front(), record.middle = lengths[lengths.size() / 2], record.longest = lengths.back();
  record.lengths = length_bins(lengths);
  for (int64_t r = 0; r < store.rows(); ++r) {
    const int64_t tenth = std::min<int64_t>(9, 10 * store.row_tokens(r) / max_length);
    ++record.rows_by_filled[static_cast<size_t>(tenth)];
  }
  record.filled = static_cast<double>(store.tokens()) / static_cast<double>(store.rows() * max_length);
  return record;
}

}  // namespace drover
