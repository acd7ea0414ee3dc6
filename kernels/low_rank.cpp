#include "kernels/low_rank.h"

#include "kernels/backend.h"

namespace drover {

std::vector<LowRankRun> low_rank_runs(std::span<const LowRank> terms) {
  std::vector<LowRankRun> runs;
  int64_t column = 0;
  for (const LowRank& term : terms) {
    LowRankRun* last = runs.empty() ? nullptr : &runs.back();
    const bool joins = last != nullptr && last->mask.p == 0 && term.mask.p == 0 && last->scale == term.scale &&
                       last->a.dtype == term.a.dtype && last->a.pitch == term.a.pitch &&
                       last->a.rows_from(last->a.rows, 0).data == term.a.data;
    if (joins) {
      last->a.rows += term.a.rows;
    } else {
      runs.push_back({term.a, term.scale, term.mask, column});
    }
    column += term.a.rows;
  }
  return runs;
}

void low_rank_input(Backend& backend, Tensor x, const LowRankRun& run, Tensor dropped, Tensor u) {
  if (run.mask.p > 0) backend.dropout(x, run.mask, dropped);
  backend.gemm(Trans::no, Trans::yes, run.scale, run.mask.p > 0 ? dropped : x, run.a, 0, u);
}

}  // namespace drover
