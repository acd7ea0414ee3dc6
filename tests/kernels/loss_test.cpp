// The vocabulary softmax in blocks against one plain softmax in double: any cut into blocks and ranks gives the same
// loss and gradient.
#include <gtest/gtest.h>

#include "kernels/backend.h"
#include "kernels/base/error.h"
#include "tests/reference/compare.h"

namespace drover {
namespace {

using namespace reference;

constexpr DType kFloats[] = {DType::f32, DType::bf16};

Matrix<Bounded> bounded(const Held& held) { return as<Bounded>(held.values()); }

struct Case {
  int64_t rows, vocabulary, ranks, block;
};

// Logits of `vocabulary` columns, dealt to ranks of ⌈vocabulary/ranks⌉ rows (the last one padded) and folded `block`
// columns at a time.
void check(Backend& backend, const Case& c, double scale) {
  SCOPED_TRACE(
      fmt::format("rows {} vocabulary {} ranks {} block {} scale {}", c.rows, c.vocabulary, c.ranks, c.block, scale));
  const int64_t per_rank = (c.vocabulary + c.ranks - 1) / c.ranks;
  const Held logits(drawn_matrix(1, c.rows, per_rank * c.ranks, DType::f32, scale), DType::f32, 3);
  std::vector<int32_t> label_values;
  Doubles label_matrix(c.rows, 1);
  for (int64_t r = 0; r < c.rows; ++r) {
    label_values.push_back(static_cast<int32_t>((r * 37 + c.vocabulary - 1) % c.vocabulary));
    label_matrix(r, 0) = label_values.back();
  }
  const Held labels(label_matrix, DType::i32), parts(c.ranks * c.rows, 3, DType::f32, 2), lse(c.rows, 1, DType::f32),
      logprob(c.rows, 1, DType::f32);
  const auto valid_in = [&](int64_t begin, int64_t count) {
    return std::clamp<int64_t>(c.vocabulary - begin, 0, count);
  };
  for (int64_t k = 0; k < c.ranks; ++k) {
    const Tensor statistics = Tensor(parts).rows_from(k * c.rows, c.rows);
    backend.start_statistics(statistics);
    for (int64_t b = 0; b < per_rank; b += c.block) {
      const int64_t begin = k * per_rank + b, count = std::min(c.block, per_rank - b);
      backend.fold_statistics(Tensor(logits).columns(begin, count), labels, begin, valid_in(begin, count), statistics);
    }
  }
  backend.merge_statistics(parts, lse, logprob);
  const auto expected_lse = log_sum_exp(bounded(logits), c.vocabulary);
  EXPECT_TRUE(parts.guard_intact());
  EXPECT_TRUE(as_expected(lse, expected_lse));
  Matrix<Bounded> expected_logprob(c.rows, 1);
  for (int64_t r = 0; r < c.rows; ++r) {
    expected_logprob(r, 0) = Bounded(get(logits, r, label_values[static_cast<size_t>(r)])) - expected_lse(r, 0);
  }
  EXPECT_TRUE(as_expected(logprob, expected_logprob));

  const auto expected_d = cross_entropy_backward(bounded(logits), label_values, 0, c.vocabulary, bounded(lse));
  for (const DType type : kFloats) {
    const Held d(drawn_matrix(2, c.rows, per_rank * c.ranks, type), type, 1);
    for (int64_t begin = 0; begin < per_rank * c.ranks; begin += c.block) {
      const int64_t count = std::min(c.block, per_rank * c.ranks - begin);
      backend.cross_entropy_backward(Tensor(logits).columns(begin, count), labels, begin, valid_in(begin, count), lse,
                                     Tensor(d).columns(begin, count));
    }
    EXPECT_TRUE(as_expected(d, expected_d)) << name_of(type);
  }
  backend.cross_entropy_backward(logits, labels, 0, c.vocabulary, lse, logits);
  EXPECT_TRUE(as_expected(logits, expected_d)) << "in place";
}

TEST(Loss, AnyCutOfTheVocabulary) {
  const auto backend = backend_under_test();
  const Case cases[] = {{1, 1, 1, 1},     {3, 17, 1, 17},  {5, 63, 1, 7},
                        {17, 129, 4, 16}, {2, 65, 3, 100}, {3, 9001, 2, 4099}};
  for (const Case& c : cases) {
    for (const double scale : {1.0, 30.0, 1e4}) check(*backend, c, scale);
  }
}

TEST(Loss, ARankOfPaddingAloneAddsNothing) {
  const auto backend = backend_under_test();
  check(*backend, {3, 5, 4, 2}, 10);  // ranks hold 2, 2, 1 and 0 rows
}

TEST(Loss, RowsWithoutALabel) {
  const auto backend = backend_under_test();
  Doubles none(2, 1);
  none.values = {-1, -1};
  const Held logits(drawn_matrix(1, 2, 9, DType::f32, 3), DType::f32), labels(none, DType::i32),
      statistics(2, 3, DType::f32), lse(2, 1, DType::f32), logprob(2, 1, DType::f32), d(2, 9, DType::f32);
  backend->start_statistics(statistics);
  backend->fold_statistics(logits, labels, 0, 9, statistics);
  backend->merge_statistics(statistics, lse, logprob);
  EXPECT_TRUE(as_expected(lse, log_sum_exp(bounded(logits), 9)));
  backend->cross_entropy_backward(logits, labels, 0, 9, lse, d);
  for (const double x : d.values().values) EXPECT_GT(x, 0);  // a plain softmax: no one was subtracted
}

TEST(Loss, NotANumberIsNotHidden) {
  const auto backend = backend_under_test();
  for (const int64_t at : {0, 3, 8, 16}) {
    Doubles values = drawn_matrix(1, 2, 17, DType::f32, 3);
    values(1, at) = std::nan("");
    const Held logits(values, DType::f32), labels(Doubles(2, 1), DType::i32), statistics(2, 3, DType::f32),
        lse(2, 1, DType::f32), logprob(2, 1, DType::f32);
    backend->start_statistics(statistics);
    backend->fold_statistics(logits, labels, 0, 17, statistics);
    backend->merge_statistics(statistics, lse, logprob);
    EXPECT_TRUE(std::isfinite(get(logprob, 0, 0)));
    EXPECT_TRUE(std::isnan(get(logprob, 1, 0))) << at;
  }
}

}  // namespace
}  // namespace drover
