#include "trainer/report/length_record.h"

#include <algorithm>
#include <charconv>

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

// What the store's notes say of rows that were cut (warnings_of in trainer/setup/inputs.h); some of these train nothing
// and are no documents.
int64_t noted_cuts(std::string_view notes) {
  const size_t said = notes.find(" training rows are longer than data.max_length");
  if (said == notes.npos) return 0;
  const size_t line = notes.rfind('\n', said);
  const size_t begin = line == notes.npos ? 0 : line + 1;
  int64_t rows = 0;
  std::from_chars(notes.data() + begin, notes.data() + said, rows);
  return rows;
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
  record.cut = std::max(record.cut, noted_cuts(store.notes()));
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
