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

INSTANTIATE_TEST_SUITE_P(EveryKind, QuantisedRows, testing::ValuesIn(kQuantisedKinds), kind_name);

}  // namespace
}  // namespace drover
