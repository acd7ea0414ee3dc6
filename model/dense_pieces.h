// A weight in plain numbers, read piece by piece, so that codes are made of it in little memory.
#pragma once
#include <functional>
#include <vector>

#include "kernels/base/quantise.h"
#include "model/weight_source.h"

namespace drover {

inline constexpr int64_t kFloatsAtOnce = int64_t{4} << 20;
inline constexpr int64_t kFloatsOfAThread = int64_t{256} << 10;  // of pieces that several threads make

// f(begin, count) of pieces of `rows`, each of whole blocks of `block` rows, that hold at most `most` numbers where a
// block does.
void in_pieces(Range rows, int64_t cols, int64_t block, const std::function<void(int64_t begin, int64_t count)>& f,
               int64_t most = kFloatsAtOnce);

std::vector<float> floats(WeightSource& source, const ParamSpec& spec, Range rows, Range cols);  // row by row

// Reads the whole tensor, whose columns are blocks of 64; `threads` look for its largest numbers.
Nf4Scales nf4_scales(WeightSource& source, const ParamSpec& spec, int threads);

}  // namespace drover
