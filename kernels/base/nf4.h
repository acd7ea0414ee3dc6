// NF4: four bits choose one of sixteen levels of a normal distribution, times the largest magnitude (absmax) of a block
// of 64 neighbours in a row. With double quantisation the absmax are 8-bit codes of a dynamic map, times the largest of
// 256 of them, plus the mean of all. Source: Dettmers et al. 2023, "QLoRA"; numbers and order of operations are those
// of bitsandbytes, so that its files are read, and made, bit for bit.
#pragma once
#include <array>
#include <cstdint>
#include <span>

namespace drover {

inline constexpr int64_t kNf4Block = 64;         // weights that share an absmax
inline constexpr int64_t kNf4NestedBlock = 256;  // absmax that share one of theirs
inline constexpr int64_t kNf4AbsmaxLevels = 256;

inline constexpr std::array<float, 16> kNf4Levels = {-1.0f,
                                                     -0.6961928009986877f,
                                                     -0.5250730514526367f,
                                                     -0.39491748809814453f,
                                                     -0.28444138169288635f,
                                                     -0.18477343022823334f,
                                                     -0.09105003625154495f,
                                                     0.0f,
                                                     0.07958029955625534f,
                                                     0.16093020141124725f,
                                                     0.24611230194568634f,
                                                     0.33791524171829224f,
                                                     0.44070982933044434f,
                                                     0.5626170039176941f,
                                                     0.7229568362236023f,
                                                     1.0f};

// The 256 levels of the codes of absmax, rising: of each decade from 10⁻⁷ to 1 the means of 2^i equal steps, both
// signs.
const std::array<float, 256>& nf4_absmax_levels();

// The nearest levels of a block's values times the inverse of its absmax, the even one's code in the upper half of a
// byte; and the nearest one of (absmax - mean) / largest.
void nf4_codes(const float* values, float inverse, uint8_t* codes);
uint8_t nf4_absmax_code(float value_over_largest);

}  // namespace drover
