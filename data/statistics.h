// What is in a token store, for people: how long its documents are, how full its rows, how its answers end.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "data/token_store.h"

namespace drover {

struct StoreStatistics {
  int64_t shortest = 0, median = 0, longest = 0;  // document, in tokens
  std::vector<int64_t> lengths;                   // [i]: documents of 2^i to 2^(i+1) − 1 tokens
  double filled = 0;                              // share of rows · max_length that is tokens
  int64_t answers = 0, ended = 0;  // runs of trained tokens; of these, those whose last token ends an answer
};

// `ends`: the ids that end an answer.
StoreStatistics statistics(const TokenStore& store, int64_t max_length, std::span<const int32_t> ends);

}  // namespace drover
