#include "kernels/count/tally.h"

#include <fmt/format.h>

namespace drover {

int64_t Tally::calls(std::string_view op) const {
  const auto found = counts_.find(op);
  return found == counts_.end() ? 0 : found->second.calls;
}

int64_t Tally::total_flops() const {
  int64_t sum = 0;
  for (const auto& [name, count] : counts_) sum += count.flops;
  return sum;
}

void Tally::end(const OpCall& call) {
  if (call.parts > 0) return;
  OpCount& count = counts_[call.op];
  count.calls += 1;
  count.flops += call.flops;
  count.bytes += call.bytes;
  if (record_ && call.is_product()) {
    shapes_.push_back(fmt::format("{} ({},{})x({},{})", call.op, call.a.rows, call.a.cols, call.b.rows, call.b.cols));
  }
}

}  // namespace drover
