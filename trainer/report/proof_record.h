// What comparison.json of a run's adapter says (trainer/export/comparison.h): how far what answers computes what was
// trained.
#pragma once
#include <map>
#include <optional>
#include <string>

#include "kernels/base/json.h"
#include "trainer/report/metrics_series.h"

namespace drover {

struct ProofPart {
  std::string name;  // "reloaded", "served", "merged"
  double logprob = kHole, distance = kHole, largest = kHole;
};

struct ProofRecord {
  std::string rows, dtype, adapter_dtype;
  double tokens = kHole, trained_logprob = kHole;
  int64_t step = 0;              // 0: not stated
  std::vector<ProofPart> parts;  // those that were compared
  std::map<std::string, std::string> why;
};

ProofRecord proof_record(const Json& json);

}  // namespace drover
