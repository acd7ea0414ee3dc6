// How far an adapter moved each linear: ‖ΔW‖ of its factors, and ‖W‖ of the base's weight where the base is at hand.
#pragma once
#include <string>
#include <vector>

#include "kernels/base/file.h"
#include "trainer/report/metrics_series.h"

namespace drover {

struct LinearChange {
  std::string path;     // "model.layers.0.self_attn.q_proj"
  int64_t layer = -1;   // -1: in no layer, as lm_head
  std::string module;   // "q_proj"
  double change = 0;    // ‖ΔW‖
  double base = kHole;  // ‖W‖; NaN: not read

  double relative() const { return change / base; }
};

struct AdapterChange {
  std::vector<LinearChange> linears;  // by layer, then in the order of a block; what is in no layer comes last
  std::string without_base;           // why there is no ‖W‖; empty where there is
  std::vector<std::string> modules() const;
  int64_t layers() const;  // one more than the highest
};

// Which bases are read for their norms: up to kQuickBytes of adapted weights, or of any size.
enum class BaseNorms : uint8_t { where_quick, always, never };
inline constexpr double kQuickBytes = 32e9;  // in fp32: some ten seconds from a disk's cache

// Errors as AdapterFile has them; a base that cannot be read is a reason, not an error.
AdapterChange adapter_change(const fs::path& adapter, const fs::path& base, BaseNorms norms);

}  // namespace drover
