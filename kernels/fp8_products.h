// Products of frozen weights that are held in fp8, in fp8 (Products::fp8): the other operand, x or dy, is quantised to
// e4m3 as it comes, products of codes are summed in fp32, and the sums are scaled. A run is what of the summed index
// has one scale a row; q and s are the codes and scales of the operand, c and w those of the weight.
//   weights in blocks of 128 × 128 (VEC128_32F × BLK128x128_32F); runs are blocks, the last of a tensor may be short:
//     y[t,o]  = Σ_b s[t,b]·w[o / 128, b]·Σ_{i in b} q[t,i]·c[o,i]
//     dx[t,i] = Σ_b s[t,b]·w[b, i / 128]·Σ_{o in b} q[t,o]·c[o,i]
//   weights with a scale a row (OUTER_VEC_32F); one run:
//     y[t,o]  = s[t]·w[o]·Σ_i q[t,i]·c[o,i]
//     dx[t,i] = s[t]·Σ_o q[t,o]·c[o,i], where w[o]·dy[t,o] is what is quantised, since w[o] stands inside the sum
//   weights with one scale: the same with a vector of it. With SCALAR_32F x would have one scale too, and what a token
//     computes would depend on which tokens share its call.
// In parentheses: cuBLASLt's scale modes. The product c·w is not rounded first, as Rounding has it of widened weights.
// A tensor-parallel slice has the whole tensor's blocks, so that its products are those of the whole but for the order
// of sums. A scale a row is of the columns that a rank has: what quantising rounds differs from rank count to rank
// count where a sum is cut (o and down; dx of the others), by 2⁻⁴ of a number at most, 2⁻⁴/√3 = u of their norm.
// Rounding to e4m3 is a step: of numbers that are δ apart a share of δ/u lies on two sides of one, and the codes are
// then √(δ·u) apart. So what an order of sums makes of fp32's 2⁻²⁴ grows from product to product, and stays below u.
// Sources: DeepSeek-AI 2024, "DeepSeek-V3 technical report", section 3.3 (blocks); FBGEMM's quantize_fp8_per_row (rows,
// and the bound that config.json's activation_scale_ub puts on x); cuBLAS 13.0, cublasLtMatmulMatrixScale_t.
#pragma once
#include <bit>
#include <vector>

#include "kernels/base/e4m3.h"
#include "kernels/quantised_weight.h"

namespace drover {

// --- how an operand is quantised ------------------------------------------------------------------

// The bits of magnitudes order them, NaN above infinity, so that the largest does not depend on who takes it.
DROVER_HOST_DEVICE inline uint32_t magnitude_bits(float value) { return std::bit_cast<uint32_t>(value) & 0x7fffffffu; }

// amax / 448 of the values that share a scale, 1 where that is no normal number: of zeros, above all. Magnitudes above
// `bound` are cut to it (0: none are); where one is not finite, results are NaN with a bound as without.
DROVER_HOST_DEVICE inline float fp8_scale(uint32_t largest_magnitude, float bound) {
  float largest = std::bit_cast<float>(largest_magnitude);
  if (bound > 0 && largest_magnitude < 0x7f800000u && largest > bound) largest = bound;
  const float scale = largest / kLargestE4m3;
  return scale < 0x1p-126f ? 1.0f : scale;
}
// To the nearest, ties to even, at most ±448; NaN stays NaN.
DROVER_HOST_DEVICE inline uint8_t fp8_code(float value, float scale) { return e4m3_of_float(value / scale); }

// --- of which weights, and in which runs ----------------------------------------------------------

// Blocks of 128 × 128 that begin where the tensor's do, scales a row, or one; parts and columns in whole packs of 16,
// which cuBLASLt asks for. Others are widened.
bool multiplies_in_fp8(const WeightShape& shape);

struct SumRun {
  int64_t begin = 0, count = 0;
};
std::vector<SumRun> input_runs(const Fp8Weight& w);  // of columns: of the sum in y; of each, a column of w.scales
// Of rows: of the sum in dx. With blocks, each has a row of w.scales.
std::vector<SumRun> output_runs(const Fp8Weight& w);

}  // namespace drover
