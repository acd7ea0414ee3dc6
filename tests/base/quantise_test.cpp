// fp8 and NF4 numbers, and how they are made. What bitsandbytes makes is compared in tests/files.
#include "kernels/base/quantise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/base/e4m3.h"
#include "kernels/base/nf4.h"

namespace drover {
namespace {

TEST(E4m3, ItsNumbersAreThoseOfTheFormat) {
  EXPECT_EQ(float_of_e4m3(0x00), 0);
  EXPECT_EQ(float_of_e4m3(0x01), 0x1p-9f);  // the smallest
  EXPECT_EQ(float_of_e4m3(0x07), 7 * 0x1p-9f);
  EXPECT_EQ(float_of_e4m3(0x08), 0x1p-6f);
  EXPECT_EQ(float_of_e4m3(0x38), 1);
  EXPECT_EQ(float_of_e4m3(0x7e), 448);
  EXPECT_EQ(float_of_e4m3(0xfe), -448);
  EXPECT_TRUE(std::isnan(float_of_e4m3(0x7f)));
  EXPECT_TRUE(std::isnan(float_of_e4m3(0xff)));
}

TEST(E4m3, RoundsToTheNearestAndTiesToEven) {
  for (int code = 0; code < 0x7e; ++code) {
    const float here = float_of_e4m3(static_cast<uint8_t>(code)), next = float_of_e4m3(static_cast<uint8_t>(code + 1));
    const float middle = (here + next) / 2;
    EXPECT_EQ(e4m3_of_float(here), code);
    EXPECT_EQ(e4m3_of_float(-here), code | 0x80);
    EXPECT_EQ(e4m3_of_float(std::nextafter(middle, 0.0f)), code);
    EXPECT_EQ(e4m3_of_float(middle), code % 2 == 0 ? code : code + 1);
    EXPECT_EQ(e4m3_of_float(std::nextafter(middle, 1000.0f)), code + 1);
  }
  for (const float large : {448.0f, 463.0f, 1e30f, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(e4m3_of_float(large), 0x7e);
    EXPECT_EQ(e4m3_of_float(-large), 0xfe);
  }
  EXPECT_EQ(e4m3_of_float(std::nanf("")) & 0x7f, 0x7f);
}

TEST(Nf4, CodesAreOfTheNearestLevel) {
  for (int i = -1100; i <= 1100; ++i) {
    const float x = static_cast<float>(i) / 1000;
    std::array<float, kNf4Block> values;  // half of each, to be doubled, the even ones negative
    for (size_t j = 0; j < values.size(); ++j) values[j] = (j % 2 == 0 ? -x : x) / 2;
    std::array<uint8_t, kNf4Block / 2> codes;
    nf4_codes(values.data(), 2, codes.data());
    for (const uint8_t byte : codes) {
      const float even = kNf4Levels[byte >> 4], odd = kNf4Levels[byte & 15];
      for (const float level : kNf4Levels) {
        EXPECT_LE(std::fabs(even + x), std::fabs(level + x) + 1e-7f) << x;
        EXPECT_LE(std::fabs(odd - x), std::fabs(level - x) + 1e-7f) << x;
      }
    }
  }
}

TEST(Nf4, LevelsOfAbsmaxRiseFromTheSmallestDecade) {
  const auto& levels = nf4_absmax_levels();
  for (size_t i = 1; i < levels.size(); ++i) EXPECT_LT(levels[i - 1], levels[i]);
  EXPECT_EQ(levels[127], 0);
  EXPECT_EQ(levels[255], 1);
  EXPECT_FLOAT_EQ(levels[128], 5.5e-7f);
  for (size_t i = 0; i < levels.size(); ++i) EXPECT_EQ(nf4_absmax_code(levels[i]), i);
  EXPECT_EQ(nf4_absmax_code(-2), 0);
  EXPECT_EQ(nf4_absmax_code(2), 255);
}

std::vector<float> drawn(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i) * 0.7f) * 0.03f;
  return values;
}

TEST(MakeFp8, EveryBlockHasTheLeastPowerThatHoldsIt) {
  const int64_t rows = 130, cols = 300;
  std::vector<float> values = drawn(rows * cols);
  values[0] = -2;  // of the first block
  const Fp8Slice made = make_fp8(values, 0, rows, 0, cols);
  ASSERT_EQ(made.scales.size(), 6u);
  EXPECT_EQ(made.codes[0], 0xf8);  // -256
  EXPECT_EQ(made.scales[0], 0x1p-7f);
  EXPECT_EQ(made.scales[1], 0x1p-13f);
  EXPECT_TRUE(std::ranges::all_of(made.scales, is_moderate_power));
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      const size_t at = static_cast<size_t>(i * cols + j);
      const float scale = made.scales[static_cast<size_t>(i / 128 * 3 + j / 128)];
      const float error = std::fabs(float_of_e4m3(made.codes[at]) * scale - values[at]);
      EXPECT_LE(error, std::max(std::fabs(values[at]) * 0x1p-4f, scale * 0x1p-10f) * 1.0001f);
    }
  }
}

TEST(MakeFp8, ALargestOf448StaysThat) {
  const auto made = [](float largest) { return make_fp8(std::vector<float>{largest, 0.5f}, 0, 1, 0, 2); };
  EXPECT_EQ(made(448).scales[0], 1);
  EXPECT_EQ(made(448).codes[0], 0x7e);
  EXPECT_EQ(made(std::nextafter(448.0f, 500.0f)).scales[0], 2);
  EXPECT_EQ(made(std::nextafter(448.0f, 500.0f)).codes[0], 0x76);  // 224
}

TEST(MakeFp8, NumbersAtTheEndsOfFloatsRangeHaveFiniteScales) {
  const auto made = [](float value) { return make_fp8(std::vector<float>{value}, 0, 1, 0, 1); };
  const float largest = std::numeric_limits<float>::max(), least = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(made(largest).scales[0], 0x1p120f);
  EXPECT_EQ(made(largest).codes[0], 0x78);  // 256, which is 2^128: nearest to it
  EXPECT_EQ(made(least).scales[0], std::numeric_limits<float>::min());
  EXPECT_EQ(made(least).codes[0], 0);
}

TEST(MakeFp8, ABlockWithAnInfinityIsNotFinite) {
  const Fp8Slice made = make_fp8(std::vector<float>{1, INFINITY}, 0, 1, 0, 2);
  std::vector<float> read(2);
  dequantise(made, read.data());
  EXPECT_FALSE(std::isfinite(read[0]));
  EXPECT_FALSE(std::isfinite(read[1]));
}

TEST(IsModeratePower, OfPowersOnly) {
  for (const float power : {1.0f, 2.0f, 0.125f, 0x1p100f, 0x1p-100f}) EXPECT_TRUE(is_moderate_power(power)) << power;
  for (const float other : {0.0f, -1.0f, 3.0f, 0.75f, 0x1p101f, 0x1p-101f, 0x1p-140f, INFINITY, NAN})
    EXPECT_FALSE(is_moderate_power(other)) << other;
}

TEST(MakeFp8, ZerosStayZeros) {
  const Fp8Slice made = make_fp8(std::vector<float>(10), 0, 2, 0, 5);
  EXPECT_EQ(made.codes, std::vector<uint8_t>(10));
  EXPECT_EQ(made.scales, std::vector<float>{1});
}

TEST(MakeFp8, APartIsTheSameWhereverItIsCut) {
  const int64_t rows = 300, cols = 400;
  const std::vector<float> values = drawn(rows * cols);
  const Fp8Slice whole = make_fp8(values, 0, rows, 0, cols);
  std::vector<float> lower;
  for (int64_t i = 128; i < rows; ++i)
    lower.insert(lower.end(), &values[static_cast<size_t>(i * cols + 128)],
                 &values[static_cast<size_t>(i * cols)] + cols);
  const Fp8Slice corner = make_fp8(lower, 128, rows - 128, 128, cols - 128);
  const Fp8Slice a = cut(whole, 200, 70, 190, 201), b = cut(corner, 200, 70, 190, 201);
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.scales, b.scales);
  EXPECT_EQ(a.scales.size(), 2u * 3u);  // rows 200-269 touch two blocks, columns 190-390 three
}

std::vector<float> absmax_of(const std::vector<float>& values) {
  std::vector<float> absmax;
  for (size_t i = 0; i < values.size(); i += kNf4Block) absmax.push_back(largest_magnitude({&values[i], kNf4Block}));
  return absmax;
}

TEST(MakeNf4, APartIsTheSameWhereverItIsCut) {
  const int64_t rows = 200, cols = 320;
  const std::vector<float> values = drawn(rows * cols);
  const Nf4Scales scales(absmax_of(values), cols);
  const Nf4Slice whole = scales.make(values, 0, rows, 0, cols);
  std::vector<float> part;
  for (int64_t i = 90; i < 190; ++i)
    part.insert(part.end(), &values[static_cast<size_t>(i * cols + 64)], &values[static_cast<size_t>(i * cols + 192)]);
  const Nf4Slice cut = scales.make(part, 90, 100, 64, 128);
  for (int64_t i = 0; i < 100; ++i) {
    for (int64_t j = 0; j < 64; ++j)
      EXPECT_EQ(cut.codes[static_cast<size_t>(i * 64 + j)], whole.codes[static_cast<size_t>((90 + i) * 160 + 32 + j)]);
    for (int64_t b = 0; b < 2; ++b)
      EXPECT_EQ(cut.absmax_codes[static_cast<size_t>(i * 2 + b)],
                whole.absmax_codes[static_cast<size_t>((90 + i) * 5 + 1 + b)]);
  }
  EXPECT_EQ(cut.nested, std::vector<float>(whole.nested.begin() + 1, whole.nested.end()));  // blocks 451 to 948
}

TEST(MakeNf4, ABlockOfZerosIsZeros) {
  std::vector<float> values = drawn(2 * 64);
  std::fill_n(values.begin(), 64, 0.0f);
  const Nf4Slice made = Nf4Scales(absmax_of(values), 64).make(values, 0, 2, 0, 64);
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(made.codes[i], 0x77);
}

}  // namespace
}  // namespace drover
