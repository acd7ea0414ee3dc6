// The JSON that bitsandbytes stores with an NF4 weight, as bytes of X.weight.quant_state.bitsandbytes__nf4.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/base/quantised.h"

namespace drover {

struct Nf4State {
  int64_t rows = 0, cols = 0;  // of the weight; columns are blocks of 64
  Rounding rounding = Rounding::none;
  bool nested = false;  // double quantisation
  float offset = 0;     // of the absmax, where nested
};

// bad_data with `where` and the field.
Nf4State parse_nf4_state(std::string_view text, const std::string& where);

}  // namespace drover
