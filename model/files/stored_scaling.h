// How a file says that the elements of a quantised weight are scaled.
#pragma once
#include "kernels/base/quantised.h"

namespace drover {

struct StoredScaling {
  enum class Kind : uint8_t { fp8, nf4 };
  Kind kind = Kind::fp8;
  ScaleBlocks blocks;   // fp8: {0, 0} one scale for all, {1, 0} one for each row
  bool nested = false;  // nf4: double quantisation
  Rounding rounding = Rounding::none;
  float largest_input = 0;  // fp8: what products in fp8 cut x to; 0: they do not
  bool operator==(const StoredScaling&) const = default;
};

}  // namespace drover
