// Generation with weights that are codes and scales: a row has the same bits whatever rows share its pass, whether
// codes are widened in registers or into a panel.
#include <gtest/gtest.h>

#include "tests/reference/compare.h"
#include "tests/support/quantised.h"

namespace drover {
namespace {

using namespace reference;

class QuantisedRows : public testing::TestWithParam<QuantisedKind> {};

TEST_P(QuantisedRows, ARowHasTheSameBitsInAnyCompany) {
  const auto backend = backend_under_test();
  for (const QuantisedWeight& w :
       {QuantisedWeight(*backend, GetParam(), {{1, 131, 15}, {2, 7, 13}}, {64, 192}, 150, 320),
        QuantisedWeight(*backend, GetParam(), {{4, 3, 9}}, {0, 2048}, 12, 2176)}) {
    for (const DType type : {DType::f32, DType::bf16}) {
      const Held x(drawn_matrix(1, 70, w.values.cols, type), type), all(70, w.values.rows, type);
      backend->linear(x, *w.weight, {}, false, all, SumOrder::by_row);
      for (const auto& [begin, count] : {std::pair<int64_t, int64_t>{0, 1}, {11, 1}, {12, 7}, {30, 9}}) {
        const Held some(count, w.values.rows, type);
        backend->linear(Tensor(x).rows_from(begin, count), *w.weight, {}, false, some, SumOrder::by_row);
        EXPECT_TRUE(exactly(some, values_of(Tensor(all).rows_from(begin, count)))) << begin;
      }
    }
  }
}

constexpr int64_t kCodes = 256, kOut = 5;

// Every code, small ones among others and by themselves, seen through rows of x that are 1 in one column: few rows, and
// more.
void expect_numbers_of_codes(const std::vector<float>& scales) {
  const auto backend = backend_under_test();
  Fp8Slice slice{.rows = kOut, .cols = kCodes, .blocks = {1, 0}};
  for (int64_t i = 0; i < kOut * kCodes; ++i) {
    const auto code = static_cast<uint8_t>(i % kCodes * (i / kCodes * 2 + 1));  // in another order in each row
    slice.codes.push_back((code & 0x7f) == 0x7f ? 0 : code);                    // which is NaN
  }
  slice.scales = scales;
  Arena arena("weights", backend->memory(), 1 << 20);
  Fp8Weight w(arena, {.out = kOut,
                      .in = kCodes,
                      .format = Format::fp8,
                      .scaling = {.blocks = slice.blocks, .whole_cols = kCodes, .parts = {{0, kOut}}}});
  w.load(*backend, 0, slice);
  for (const int64_t rows : {1, 4, 64}) {
    for (int64_t begin = 0; begin < kCodes; begin += rows) {
      Doubles ones(rows, kCodes);
      for (int64_t t = 0; t < rows; ++t) ones(t, begin + t) = 1;
      const Held x(ones, DType::f32), y(rows, kOut, DType::f32);
      backend->linear(x, w, {}, false, y, SumOrder::by_row);
      Doubles expected(rows, kOut);
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t o = 0; o < kOut; ++o) {
          const auto at = static_cast<size_t>(o * kCodes + begin + t);
          expected(t, o) = static_cast<double>(float_of_e4m3(slice.codes[at]) * slice.scales[static_cast<size_t>(o)]);
        }
      }
      EXPECT_TRUE(exactly(y, expected)) << begin;
    }
  }
}

TEST(Fp8Rows, EveryCodeIsItsNumber) { expect_numbers_of_codes({1, 0.5f, 0x1p-20f, 3, 0x1p110f}); }

TEST(Fp8Rows, EveryCodeIsItsNumberWhereScalesArePowersOfTwo) {
  expect_numbers_of_codes({1, 0.5f, 0x1p-20f, 0x1p-100f, 0x1p100f});
}

INSTANTIATE_TEST_SUITE_P(EveryKind, QuantisedRows, testing::ValuesIn(kQuantisedKinds), kind_name);

}  // namespace
}  // namespace drover
