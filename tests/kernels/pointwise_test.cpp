// Moving and pointwise ops against double: odd sizes, pitched tensors, both float dtypes.
#include <gtest/gtest.h>

#include "kernels/backend.h"
#include "kernels/base/error.h"
#include "tests/reference/compare.h"

namespace drover {
namespace {

using namespace reference;

constexpr DType kFloats[] = {DType::f32, DType::bf16};
constexpr int64_t kSizes[][2] = {{1, 1}, {3, 17}, {17, 8}, {5, 63}, {65, 129}, {1, 9001}, {0, 5}};

Matrix<Bounded> bounded(const Held& held) { return as<Bounded>(held.values()); }

Held indices(const std::vector<int32_t>& values) {
  Doubles m(static_cast<int64_t>(values.size()), 1);
  for (size_t i = 0; i < values.size(); ++i) m.values[i] = values[i];
  return {m, DType::i32};
}

// As an adapter's parameters become the factors next to their weights: many shapes at once, some in the columns of
// wider tensors, again with other values.
TEST(Copy, ManyAtOnce) {
  const auto backend = backend_under_test();
  constexpr int64_t kShapes[][3] = {
      {16, 40, 0}, {40, 16, 48}, {1, 1, 0}, {24, 8, 8}, {7, 9001, 0}};  // rows, columns, gap behind a row of the copy
  for (const bool odd : {false, true}) {
    for (const DType from : {DType::f32, DType::bf16}) {
      for (const DType to : {DType::f32, DType::bf16}) {
        for (int64_t seed = 1; seed <= 2; ++seed) {
          SCOPED_TRACE(fmt::format("{} to {} odd {} seed {}", name_of(from), name_of(to), odd, seed));
          std::vector<std::unique_ptr<Held>> sources, copies;
          std::vector<CopyPair> pairs;
          for (const auto& [rows, cols, gap] : kShapes) {
            if (!odd && cols % 8 != 0) continue;
            sources.push_back(std::make_unique<Held>(
                drawn_matrix(seed * 10 + static_cast<int64_t>(pairs.size()), rows, cols, to), from));
            copies.push_back(std::make_unique<Held>(drawn_matrix(99, rows, cols, to), to, gap));
            pairs.push_back({*sources.back(), *copies.back()});
          }
          for (int again = 0; again < 2; ++again) backend->copy_all(pairs);
          for (size_t i = 0; i < pairs.size(); ++i) EXPECT_TRUE(exactly(*copies[i], sources[i]->values())) << i;
        }
      }
    }
  }
  backend->copy_all({});
}

TEST(Copy, AnyPairOfDtypes) {
  const auto backend = backend_under_test();
  for (const auto& [rows, cols] : kSizes) {
    for (const DType from : {DType::f32, DType::bf16, DType::f64}) {
      for (const DType to : {DType::f32, DType::bf16, DType::f64}) {
        for (const int64_t gap : {0, 3}) {
          SCOPED_TRACE(fmt::format("({},{}) {} to {} gap {}", rows, cols, name_of(from), name_of(to), gap));
          const Held x(drawn_matrix(1, rows, cols, from, 1e3), from, gap), y(rows, cols, to, 2 * gap);
          backend->copy(x, y);
          Doubles expected = x.values();
          for (double& v : expected.values) v = rounded(v, to);
          EXPECT_TRUE(exactly(y, expected));
        }
      }
    }
    const Held x(drawn_matrix(1, rows, cols, DType::f32, 0), DType::i32), y(rows, cols, DType::i32, 1);
    backend->copy(x, y);
    EXPECT_TRUE(exactly(y, x.values()));
  }
}

TEST(Copy, HostRowsAreContiguous) {
  const auto backend = backend_under_test();
  const std::vector<float> host{1, 2, 3, 4, 5, 6};
  const Held x(2, 3, DType::f32, 4);
  backend->upload(host.data(), x);
  EXPECT_TRUE(x.guard_intact());
  EXPECT_EQ(get(x, 1, 2), 6);
  std::vector<float> back(6);
  backend->download(x, back.data());
  EXPECT_EQ(back, host);
  backend->zero(x);
  EXPECT_TRUE(exactly(x, Doubles(2, 3)));
}

TEST(Rows, GatherAndScatter) {
  const auto backend = backend_under_test();
  for (const DType type : kFloats) {
    const Held x(drawn_matrix(1, 9, 17, type), type, 2), index(indices({8, 0, 3, 3})), y(4, 17, type, 1);
    backend->gather_rows(x, index, y);
    Doubles expected(4, 17);
    for (int64_t i = 0; i < 4; ++i) {
      for (int64_t j = 0; j < 17; ++j) expected(i, j) = get(x, static_cast<int64_t>(get(index, i, 0)), j);
    }
    EXPECT_TRUE(exactly(y, expected));

    const Held targets(indices({5, 1})), from(drawn_matrix(2, 2, 17, type), type, 3);
    Doubles scattered = x.values();
    for (int64_t j = 0; j < 17; ++j) {
      scattered(5, j) = get(from, 0, j);
      scattered(1, j) = get(from, 1, j);
    }
    backend->scatter_rows(from, targets, x);
    EXPECT_TRUE(exactly(x, scattered));
  }
}

TEST(Rows, EmbeddingOutsideItsRangeIsZero) {
  const auto backend = backend_under_test();
  for (const DType type : kFloats) {
    const Held table(drawn_matrix(1, 6, 17, type), type), ids(indices({10, 13, 14, 9, 200})), y(5, 17, type, 1);
    backend->embedding(ids, DenseWeight(table), 10, 4, y);  // rows 4 and 5 are padding
    Doubles expected(5, 17);
    for (int64_t j = 0; j < 17; ++j) {
      expected(0, j) = get(table, 0, j);
      expected(1, j) = get(table, 3, j);
    }
    EXPECT_TRUE(exactly(y, expected));
  }
}

TEST(Pointwise, Add) {
  const auto backend = backend_under_test();
  for (const auto& [rows, cols] : kSizes) {
    for (const DType from : kFloats) {
      for (const DType to : kFloats) {
        for (const int64_t gap : {0, 3}) {
          const Held x(drawn_matrix(1, rows, cols, from), from, gap), y(drawn_matrix(2, rows, cols, to), to, gap);
          Matrix<Bounded> expected = bounded(y);
          const auto added = bounded(x);
          for (size_t i = 0; i < expected.values.size(); ++i) expected.values[i] += added.values[i];
          backend->add(x, y);
          EXPECT_TRUE(as_expected(y, expected)) << rows << "x" << cols;
        }
      }
    }
  }
  const Held x(drawn_matrix(1, 3, 5, DType::f64), DType::f64, 1), y(drawn_matrix(2, 3, 5, DType::f64), DType::f64, 2);
  Doubles expected = y.values();
  const Doubles added = x.values();
  for (size_t i = 0; i < expected.values.size(); ++i) expected.values[i] += added.values[i];
  backend->add(x, y);
  EXPECT_TRUE(exactly(y, expected));
}

TEST(Pointwise, ScaleRows) {
  const auto backend = backend_under_test();
  for (const auto& [rows, cols] : kSizes) {
    for (const DType type : kFloats) {
      const Held x(drawn_matrix(1, rows, cols, type), type, 3),
          weights(drawn_matrix(2, rows, 1, DType::f32), DType::f32);
      Matrix<Bounded> expected = bounded(x);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < cols; ++j) expected(i, j) = expected(i, j) * Bounded(get(weights, i, 0));
      }
      backend->scale_rows(weights, x);
      EXPECT_TRUE(as_expected(x, expected));
    }
  }
}

TEST(Pointwise, SwigluAndItsBackward) {
  const auto backend = backend_under_test();
  for (const auto& [rows, cols] : kSizes) {
    for (const DType type : kFloats) {
      for (const double scale : {3.0, 100.0, 1e4}) {
        SCOPED_TRACE(fmt::format("({},{}) {} scale {}", rows, cols, name_of(type), scale));
        const Held gate_up(drawn_matrix(1, rows, 2 * cols, type, scale), type, 5), y(rows, cols, type, 1);
        backend->swiglu(gate_up, y);
        EXPECT_TRUE(as_expected(y, swiglu(bounded(gate_up))));

        const Held dy(drawn_matrix(2, rows, cols, type), type, 3), d(rows, 2 * cols, type, 7);
        const auto expected = swiglu_backward(bounded(dy), bounded(gate_up));
        backend->swiglu_backward(dy, gate_up, d, {});
        EXPECT_TRUE(as_expected(d, expected));
        const Held again(rows, cols, type, 2), d_once_more(rows, 2 * cols, type, 7);
        backend->swiglu_backward(dy, gate_up, d_once_more, again);
        EXPECT_TRUE(exactly(d_once_more, d.values()));
        EXPECT_TRUE(exactly(again, y.values()));
        backend->swiglu_backward(dy, gate_up, gate_up, dy);
        EXPECT_TRUE(exactly(gate_up, d.values())) << "in place";
        EXPECT_TRUE(exactly(dy, y.values())) << "in place";
      }
    }
  }
}

TEST(Pointwise, RopeTurnsAndTurnsBack) {
  const auto backend = backend_under_test();
  for (const int64_t half : {1, 3, 8, 12, 32}) {
    const int64_t last = 8200;
    Doubles c(last + 1, half), s(last + 1, half);
    for (int64_t p = 0; p <= last; ++p) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle =
            static_cast<double>(p) * std::pow(500000.0, -static_cast<double>(i) / static_cast<double>(half));
        c(p, i) = std::cos(angle);
        s(p, i) = std::sin(angle);
      }
    }
    const Held cosine(c, DType::f32), sine(s, DType::f32);
    const std::vector<int32_t> at{0, 1, 7, 4095, 8192, 8200, 5};
    const Held positions(indices(at));
    for (const DType type : kFloats) {
      for (const bool inverse : {false, true}) {
        const Held x(drawn_matrix(1, 7, 3 * 2 * half, type), type, 5);
        const auto expected = rope(bounded(x), at, bounded(cosine), bounded(sine), inverse);
        backend->rope(x, positions, cosine, sine, inverse);
        EXPECT_TRUE(as_expected(x, expected)) << half << " " << inverse;
      }
    }
  }
}

TEST(Dropout, DecidesByDocumentPositionAndColumn) {
  const auto backend = backend_under_test();
  const std::vector<int32_t> documents{0, 0, 7, 7, 1 << 30}, at{0, 1, 0, 9000, 3};
  const Held documents_held(indices(documents)), positions(indices(at));
  for (const DType from : kFloats) {
    for (const DType to : kFloats) {
      for (const int64_t offset : {int64_t{0}, int64_t{1}, int64_t{6}, (int64_t{1} << 34) - 7}) {
        for (const int64_t cols : {1, 3, 37, 100}) {
          const DropoutMask mask{.key = 0x1234567890abcdef,
                                 .p = 0.25f,
                                 .documents = documents_held,
                                 .positions = positions,
                                 .column_offset = offset};
          const Held x(drawn_matrix(1, 5, cols, from), from, 2), y(drawn_matrix(2, 5, cols, to), to, 3);
          Matrix<Bounded> expected(5, cols), sum = bounded(y);
          for (int64_t t = 0; t < 5; ++t) {
            for (int64_t i = 0; i < cols; ++i) {
              if (kept(mask.key, mask.p, documents[static_cast<size_t>(t)], at[static_cast<size_t>(t)], offset + i)) {
                expected(t, i) = Bounded(get(x, t, i)) / Bounded(0.75);
              }
              sum(t, i) += expected(t, i);
            }
          }
          backend->dropout_add(x, mask, y);
          EXPECT_TRUE(as_expected(y, sum));
          if (from != to) continue;
          backend->dropout(x, mask, y);
          EXPECT_TRUE(as_expected(y, expected));
        }
      }
    }
  }
}

TEST(Dropout, KeepsItsShare) {
  const auto backend = backend_under_test();
  const int64_t n = 20000;
  Doubles ones(1, n);
  for (double& x : ones.values) x = 1;
  const Held x(ones, DType::f32), y(1, n, DType::f32), zero(indices({0}));
  backend->dropout(x, {.key = 5, .p = 0.3f, .documents = zero, .positions = zero}, y);
  int64_t count = 0;
  for (double v : y.values().values) count += v != 0;
  const double sigma = std::sqrt(0.3 * 0.7 * static_cast<double>(n));
  EXPECT_NEAR(static_cast<double>(count), 0.7 * static_cast<double>(n), 5 * sigma);
}

}  // namespace
}  // namespace drover
