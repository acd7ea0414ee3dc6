// A weight in plain numbers, read piece by piece, so that codes are made of it in little memory.
#pragma once
#include <functional>
#include <vector>

#include "kernels/base/quantise.h"
#include "model/weight_source.h"

namespace drover {

// f(begin, count) of pieces of `rows`, each of whole blocks of `block` rows, that hold at most 16 MiB of fp32 where a
// block does.
void in_pieces(Range rows, int64_t cols, int64_t block, const std::function<void(int64_t begin, int64_t count)>& f);

std::vector<float> floats(WeightSource& source, const ParamSpec& spec, Range rows, Range cols);  // row by row

// Reads the whole tensor, whose columns are blocks of 64.
Nf4Scales nf4_scales(WeightSource& source, const ParamSpec& spec);

}  // namespace drover
