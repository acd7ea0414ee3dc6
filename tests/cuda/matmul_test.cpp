// Matrix products on CUDA: which algorithm is asked for, by what key it is kept, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "tests/cuda/matmul_cases.h"

namespace drover::cuda {
namespace {

using testing::HasSubstr;

uint32_t mask_of(bool deterministic, DType out) {
  Matmul matmul(nullptr, deterministic);
  Product(16, 16, 32, DType::bf16, out).run(matmul);
  return lt_record.reduction_mask;
}

TEST(Matmul, SplitSumsAreOnlyPutTogetherInFp32AndReproduciblyWhereAsked) {
  for (const DType out : kFloats) EXPECT_EQ(mask_of(true, out), CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
  EXPECT_EQ(mask_of(false, DType::bf16), CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
  EXPECT_EQ(mask_of(false, DType::f32), CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_INPLACE);
}

TEST(Matmul, AnAlgorithmIsChosenOnceAShape) {
  Matmul matmul(nullptr, true);
  const Product one(24, 16, 40), other(24, 24, 40);
  const int64_t before = lt_record.heuristics;
  for (int i = 0; i < 3; ++i) {
    one.run(matmul);
    other.run(matmul);
  }
  EXPECT_EQ(lt_record.heuristics - before, 2);
  EXPECT_TRUE(one.right());
  EXPECT_TRUE(other.right());
}

TEST(Matmul, TheKeyHoldsWhatAnAlgorithmMayDependOn) {
  const Held a(16, 24, DType::bf16, 8), b(16, 24, DType::bf16), c(16, 16, DType::f32);
  const MatmulKey key = matmul_key(Trans::no, Trans::yes, a, b, 1, c);
  EXPECT_EQ(key, (MatmulKey{false, true, 16, 16, 24, 32, 24, 16, DType::bf16, DType::f32, true, 16}));
  EXPECT_EQ(text_of(key), "nt 16x16x24 pitch 32,24,16 bf16 to f32 added align 16");
  MatmulKey others[] = {key, key, key, key, key, key, key, key, key, key, key, key};
  others[0].transpose_a = true;
  others[1].transpose_b = false;
  others[2].m = others[3].n = others[4].k = others[5].pitch_a = others[6].pitch_b = others[7].pitch_c = 48;
  others[8].in = DType::f32;
  others[9].out = DType::bf16;
  others[10].accumulate = false;
  others[11].alignment = 4;
  for (const MatmulKey& other : others) {
    EXPECT_NE(other, key);
    EXPECT_NE(text_of(other), text_of(key));
  }
  const auto alignment = [&](Tensor left) {
    return matmul_key(Trans::no, Trans::yes, left, Tensor(b).columns(0, left.cols), 0, c).alignment;
  };
  EXPECT_EQ(alignment(Tensor(a).columns(4, 8)), 8);
  EXPECT_EQ(alignment(Tensor(a).columns(1, 8)), 2);
}

TEST(Matmul, ASingleRowsPitchMeansNothing) {
  Matmul matmul(nullptr, true);
  const Product p(1, 16, 24);
  Tensor a = p.a;
  a.pitch = 1;
  matmul(Trans::no, Trans::no, 1, a, p.b, 0, p.c);
  EXPECT_TRUE(p.right());
}

TEST(Matmul, EmptyOperands) {
  Matmul matmul(nullptr, true);
  for (const DType type : kFloats) {
    const Held none(0, 5, type), b(drawn_matrix(1, 5, 7, type), type), no_rows(0, 7, type), no_columns(5, 0, type);
    const int64_t before = lt_record.products;
    matmul(Trans::no, Trans::no, 1, none, b, 0, no_rows);
    matmul(Trans::yes, Trans::no, 1, b, no_columns, 0, Held(7, 0, type));
    const Doubles old = drawn_matrix(2, 3, 7, type);
    const Held a(3, 0, type), w(0, 7, type), kept(old, type, 2), cleared(old, type, 2);
    matmul(Trans::no, Trans::no, 1, a, w, 1, kept);
    matmul(Trans::no, Trans::no, 1, a, w, 0, cleared);
    EXPECT_TRUE(exactly(kept, old));
    EXPECT_TRUE(exactly(cleared, Doubles(3, 7)));
    EXPECT_EQ(lt_record.products, before);
  }
}

TEST(Matmul, WhatDoesNotFitIsRefusedByShape) {
  Matmul matmul(nullptr, true);
  const auto refused = [&](Tensor a, Tensor b, Tensor c) {
    try {
      matmul(Trans::no, Trans::yes, 1, a, b, 0, c);
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::internal);
      return std::string(error.what());
    }
    return std::string();
  };
  const Held wide(3, 8, DType::f32), narrow(4, 8, DType::bf16), long_one(4, 9, DType::f32), f32(3, 4, DType::f32),
      bf16(3, 4, DType::bf16);
  EXPECT_THAT(refused(wide, narrow, f32), HasSubstr("no product of 3×8 f32 and 4×8 bf16 transposed is 3×4 f32"));
  EXPECT_THAT(refused(wide, Held(4, 8, DType::f32), bf16), HasSubstr("3×4 bf16"));
  EXPECT_THAT(refused(wide, long_one, f32), HasSubstr("4×9 f32"));
}

}  // namespace
}  // namespace drover::cuda
