// The training data as the run saw it, from its token store: how long documents are, how full rows are, what was cut.
#pragma once
#include <string>
#include <vector>

#include "data/token_store.h"
#include "trainer/report/metrics_series.h"

namespace drover {

struct LengthBin {
  int64_t begin = 0, end = 0;  // documents of [begin, end) tokens
  int64_t documents = 0;
};

struct LengthRecord {
  int64_t documents = 0, rows = 0, tokens = 0, trained_tokens = 0;
  int64_t shortest = 0, middle = 0, longest = 0;  // document, in tokens; the median
  int64_t max_length = 0;  // 0: not known; then nothing counts as cut, and rows are as full as the longest document
  // Rows that were cut at their end, by the notes or, where more, by documents of max_length tokens that end their row.
  int64_t cut = 0;
  double filled = 0;                    // share of rows · max_length that is tokens
  std::vector<int64_t> rows_by_filled;  // 10: rows filled to [0, 10) %, …, [90, 100] %
  std::vector<LengthBin> lengths;
  std::string notes;  // what was said of the data when it was read, lines
};

LengthRecord length_record(const TokenStore& store, int64_t max_length);

}  // namespace drover
