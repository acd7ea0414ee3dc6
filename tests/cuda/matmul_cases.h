// What the tests of CUDA's matrix products share: operands of one product, and those of a linear whose low-rank terms
// lie in strips.
#pragma once
#include <gtest/gtest.h>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/weight.h"
#include "tests/cuda/emulation/emulated_cublaslt.h"
#include "tests/reference/compare.h"

namespace drover::cuda {
namespace {

using namespace reference;
using emulation::lt_record;

inline Matrix<Bounded> bounded(const Doubles& values) { return as<Bounded>(values); }
constexpr DType kFloats[] = {DType::f32, DType::bf16};

// Operands of one product with its expected value.
struct Product {
  Held a, b, c;
  Product(int64_t m, int64_t n, int64_t k, DType in = DType::bf16, DType out = DType::bf16)
      : a(drawn_matrix(1, m, k, in), in), b(drawn_matrix(2, k, n, in), in), c(m, n, out) {}
  void run(Matmul& matmul) const { matmul(Trans::no, Trans::no, 1, a, b, 0, c); }
  MatmulKey key() const { return matmul_key(Trans::no, Trans::no, a, b, 0, c); }
  testing::AssertionResult right() const {
    return as_expected(c, product(Trans::no, Trans::no, 1, bounded(a.values()), bounded(b.values()), 0,
                                  bounded(Doubles(c->rows, c->cols))));
  }
};

// A linear of two adapted members with an unadapted one between, its operands widened by strips. What lies beyond a
// strip is NaN.
struct Widened {
  static constexpr int64_t kIn = 24, kOut[3] = {16, 8, 24}, kRank[2] = {3, 6}, kColumn[2] = {0, 24}, kAllOut = 48,
                           kAllRank = 9, kStrip = low_rank_strip(kAllRank);
  int64_t t;
  Held x, w, dy;                      // whole buffers
  Held apart_b[2], apart_v, apart_a;  // the same terms elsewhere
  Widened(int64_t rows, DType type)
      : t(rows),
        x(poisoned(rows, kIn + kStrip + 8), type),
        w(poisoned(kAllOut + kStrip, kIn + kStrip + 8), type),
        dy(poisoned(rows, kAllOut + kStrip + 8), type),
        apart_b{{drawn_matrix(5, kOut[0], kRank[0], type), type}, {drawn_matrix(6, kOut[2], kRank[1], type), type}},
        apart_v(drawn_matrix(7, rows, kAllRank, type), type, 7),
        apart_a(drawn_matrix(8, kAllRank, kIn, type), type) {
    fill(Tensor(x).columns(0, kIn), drawn_matrix(1, rows, kIn, type));
    fill(Tensor(w).rows_from(0, kAllOut).columns(kIn, kStrip), Doubles(kAllOut, kStrip));
    fill(Tensor(w).rows_from(kAllOut, kStrip).columns(0, kIn), Doubles(kStrip, kIn));
    fill(weight(), drawn_matrix(2, kAllOut, kIn, type));
    for (int i : {0, 1}) fill(b(i), apart_b[i].values());
    fill(a(), apart_a.values());
    fill(Tensor(dy).columns(0, kAllOut), drawn_matrix(3, rows, kAllOut, type));
    fill(Tensor(dy).columns(kAllOut, kStrip), Doubles(rows, kStrip));
    fill(v(), apart_v.values());
  }
  static Doubles poisoned(int64_t rows, int64_t cols) {
    Doubles m(rows, cols);
    for (double& value : m.values) value = std::nan("");
    return m;
  }
  static void fill(Tensor t, const Doubles& values) {
    for (int64_t i = 0; i < t.rows; ++i) {
      for (int64_t j = 0; j < t.cols; ++j) set(t, i, j, values(i, j));
    }
  }
  Tensor input() const { return Tensor(x).columns(0, kIn); }
  Tensor weight() const { return Tensor(w).rows_from(0, kAllOut).columns(0, kIn); }
  Tensor gradient() const { return Tensor(dy).columns(0, kAllOut); }
  Tensor v() const { return Tensor(dy).columns(kAllOut, kAllRank); }
  Tensor a() const { return Tensor(w).rows_from(kAllOut, kAllRank).columns(0, kIn); }
  Tensor b(int i) const {
    return Tensor(w).rows_from(kColumn[i], kOut[2 * i]).columns(kIn + (i == 0 ? 0 : kRank[0]), kRank[i]);
  }
  std::vector<LowRank> terms() const { return terms_of(a(), b(0), b(1)); }
  std::vector<LowRank> terms_apart() const { return terms_of(apart_a, apart_b[0], apart_b[1]); }
  std::vector<LowRank> terms_of(Tensor a, Tensor b0, Tensor b1) const {
    return {{.a = a.rows_from(0, kRank[0]), .b = b0, .scale = 0.5f, .column = kColumn[0]},
            {.a = a.rows_from(kRank[0], kRank[1]), .b = b1, .scale = second_scale, .column = kColumn[1]}};
  }
  float second_scale = 0.5f;  // another: the two u are two products
  DenseWeight frozen() const { return DenseWeight(weight()); }
  Matrix<Bounded> expected_u() const {
    Matrix<Bounded> all(t, kAllRank);
    int64_t column = 0;
    for (const LowRank& term : terms()) {
      const Matrix<Bounded> u = product(Trans::no, Trans::yes, term.scale, bounded(values_of(input())),
                                        bounded(values_of(term.a)), 0, Matrix<Bounded>(t, term.a.rows));
      for (int64_t i = 0; i < t; ++i) {
        for (int64_t j = 0; j < u.cols; ++j) all(i, column + j) = u(i, j);
      }
      column += u.cols;
    }
    return all;
  }
  Matrix<Bounded> expected(Tensor u, const Doubles& old) const {  // with the u that was computed
    std::vector<LowRankTerm<Bounded>> low;
    int64_t column = 0;
    for (const LowRank& term : terms()) {
      low.push_back({bounded(values_of(u.columns(column, term.a.rows))), bounded(values_of(term.b)), term.column});
      column += term.a.rows;
    }
    return reference::linear(bounded(values_of(input())), bounded(values_of(weight())), low, bounded(old));
  }
  Matrix<Bounded> expected_dx() const {
    return reference::linear_dx(bounded(values_of(gradient())), bounded(values_of(weight())), bounded(values_of(v())),
                                bounded(values_of(a())));
  }
};

}  // namespace
}  // namespace drover::cuda
