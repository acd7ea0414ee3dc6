// An observer that counts: calls, FLOPs and bytes of every op by its name. Of an op that is carried out by others,
// those are counted.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "kernels/op_call.h"

namespace drover {

// What the calls of one op cost.
struct OpCount {
  int64_t calls = 0;
  int64_t flops = 0;
  int64_t bytes = 0;
};

class Tally : public OpObserver {
 public:
  const std::map<std::string_view, OpCount>& counts() const { return counts_; }
  int64_t calls(std::string_view op) const;
  int64_t total_flops() const;
  // For tests: the shape of every product, "op (T,in)x(out,in)", in the order in which they end.
  void record_shapes(bool on) { record_ = on; }
  const std::vector<std::string>& shapes() const { return shapes_; }

  void begin(const OpCall&) override {}
  void end(const OpCall& call) override;

 private:
  std::map<std::string_view, OpCount> counts_;
  std::vector<std::string> shapes_;
  bool record_ = false;
};

}  // namespace drover
