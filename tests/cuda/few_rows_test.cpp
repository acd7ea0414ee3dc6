// Products of a few rows by the streaming kernel, and products by panels.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/base/error.h"
#include "kernels/cuda/gemv.h"
#include "tests/cuda/emulation/emulated_device.h"
#include "tests/cuda/matmul_cases.h"

namespace drover::cuda {
namespace {

TEST(FewRows, AreRightInAnyNumberAtAnyAlignment) {
  for (const DType type : kFloats) {
    for (const DType out : kFloats) {
      for (const int64_t in : {1, 8, 75, 264, 1000}) {
        for (const int64_t outputs : {1, 4, 37}) {
          for (int64_t rows = 1; rows <= kGemvRows; ++rows) {
            SCOPED_TRACE(fmt::format("{} to {} T {} in {} out {}", name_of(type), name_of(out), rows, in, outputs));
            const Held x(drawn_matrix(1, rows, in, type), type), w(drawn_matrix(2, outputs, in, type), type);
            const Doubles old = drawn_matrix(3, rows, outputs, out);
            const Held fresh(Widened::poisoned(rows, outputs), out, 3), added(old, out, 3);
            gemv(nullptr, 0.5f, x, w, 0, fresh);
            gemv(nullptr, 0.5f, x, w, 2, added);
            EXPECT_TRUE(as_expected(
                fresh, product(Trans::no, Trans::yes, 0.5, bounded(x.values()), bounded(w.values()), 0, bounded(old))));
            EXPECT_TRUE(as_expected(
                added, product(Trans::no, Trans::yes, 0.5, bounded(x.values()), bounded(w.values()), 2, bounded(old))));
          }
        }
      }
    }
  }
}

// A weight with so many outputs that a warp takes more of them.
TEST(FewRows, AreRightOfAWideWeight) {
  for (const int64_t rows : {int64_t{1}, int64_t{3}, kGemvRows}) {
    const Held x(drawn_matrix(1, rows, 72, DType::bf16), DType::bf16),
        w(drawn_matrix(2, 8195, 72, DType::bf16), DType::bf16), y(Widened::poisoned(rows, 8195), DType::f32);
    gemv(nullptr, 1, x, w, 0, y);
    EXPECT_TRUE(as_expected(y, product(Trans::no, Trans::yes, 1, bounded(x.values()), bounded(w.values()), 0,
                                       bounded(Doubles(rows, 8195)))));
  }
}

// A row's bits depend on the row and the weight: not on its neighbours, their number, or where they lie.
TEST(FewRows, ARowDoesNotDependOnTheOthers) {
  for (const DType type : kFloats) {
    const int64_t in = 520, outputs = 19;
    const Doubles rows = drawn_matrix(1, kGemvRows, in, type), weights = drawn_matrix(2, outputs, in, type);
    const Held x(rows, type), w(weights, type), x_unaligned(rows, type, 1), w_unaligned(weights, type, 3),
        all(kGemvRows, outputs, DType::f32);
    gemv(nullptr, 1, x, w, 0, all);
    for (int64_t count = 1; count <= kGemvRows; ++count) {
      for (int64_t first = 0; first + count <= kGemvRows; ++first) {
        const Held some(count, outputs, DType::f32), unaligned(count, outputs, DType::f32);
        gemv(nullptr, 1, Tensor(x).rows_from(first, count), w, 0, some);
        gemv(nullptr, 1, Tensor(x_unaligned).rows_from(first, count), w_unaligned, 0, unaligned);
        EXPECT_TRUE(exactly(some, values_of(Tensor(all).rows_from(first, count)))) << count << " from " << first;
        EXPECT_TRUE(exactly(unaligned, values_of(Tensor(all).rows_from(first, count)))) << count << " from " << first;
      }
    }
  }
}

// A matrix whose last element lies at the end of the memory that may be read.
class AtTheEdge {
 public:
  AtTheEdge(const Doubles& values, DType type) {
    const int64_t bytes = values.rows * values.cols * size_of(type), page = 4096;
    readable_ = static_cast<size_t>((bytes + page - 1) / page * page);
    block_ =
        static_cast<char*>(mmap(nullptr, readable_ + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(block_ + readable_, page, PROT_NONE);
    tensor_ = matrix(block_ + readable_ - bytes, values.rows, values.cols, type);
    Widened::fill(tensor_, values);
  }
  ~AtTheEdge() { munmap(block_, readable_ + 4096); }
  AtTheEdge(const AtTheEdge&) = delete;
  AtTheEdge& operator=(const AtTheEdge&) = delete;
  operator Tensor() const { return tensor_; }

 private:
  char* block_ = nullptr;
  size_t readable_ = 0;
  Tensor tensor_;
};

TEST(FewRows, NothingBeyondTheOperandsIsRead) {
  for (const DType type : kFloats) {
    for (const int64_t in : {75, 64}) {
      for (const int64_t rows : {1, 3, 5}) {
        const AtTheEdge x(drawn_matrix(1, rows, in, type), type), w(drawn_matrix(2, 37, in, type), type);
        const Held y(rows, 37, DType::f32);
        gemv(nullptr, 1, x, w, 0, y);
        EXPECT_TRUE(as_expected(y, product(Trans::no, Trans::yes, 1, bounded(values_of(x)), bounded(values_of(w)), 0,
                                           bounded(Doubles(rows, 37)))));
      }
    }
  }
}

// In strips and apart: decoding streams the weight and asks cuBLASLt for nothing.
TEST(FewRows, DecodingTakesTheStreamingKernel) {
  CudaBackend backend({});
  const Widened four(4, DType::bf16), many(kGemvRows + 1, DType::bf16);
  const Held y(4, Widened::kAllOut, DType::bf16), u(4, 9, DType::bf16);
  const Held more(kGemvRows + 1, Widened::kAllOut, DType::bf16), more_u(kGemvRows + 1, 9, DType::bf16);
  const int64_t before = lt_record.products;
  backend.linear(four.input(), four.frozen(), {four.terms(), u, {}}, true, y);
  backend.linear(four.input(), four.frozen(), {four.terms_apart(), u, {}}, false, y);
  EXPECT_EQ(lt_record.products, before);
  backend.linear(many.input(), many.frozen(), {many.terms(), more_u, {}}, false, more);
  EXPECT_EQ(lt_record.products, before + 2);  // u, and all the rest
}

// Rows of two adapters and of none, few and more: the weight's own product is one.
TEST(FewRows, PartsShareTheWeight) {
  CudaBackend backend({});
  for (const int64_t rows : {int64_t{2}, int64_t{20}}) {
    const Widened at(3 * rows, DType::bf16);
    const Held y(3 * rows, Widened::kAllOut, DType::bf16), u(3 * rows, 9, DType::bf16);
    const std::vector<LowRank> terms = at.terms_apart();
    const LinearPart parts[] = {{rows, {terms, Tensor(u).rows_from(0, rows), {}}},
                                {rows, {}},
                                {rows, {terms, Tensor(u).rows_from(2 * rows, rows), {}}}};
    std::vector<std::string> lines;
    emulation::done_by_device = &lines;
    backend.linear_of_parts(at.input(), at.frozen(), parts, false, y);
    emulation::done_by_device = nullptr;
    const int64_t products = std::ranges::count_if(
        lines, [](const auto& line) { return line.starts_with("gemv") || line.starts_with("product"); });
    EXPECT_EQ(products, 2 + 1 + 4);  // u of each part, the weight, and two terms of each
  }
}

// By panels: products that no step asks for.

TEST(Panels, AreTakenOnlyByWhatNoStepAsksFor) {
  CudaBackend backend({});
  const int64_t before = backend.workspace_bytes();
  const Widened at(40, DType::bf16);
  const Held y(40, Widened::kAllOut, DType::bf16), dx(40, Widened::kIn, DType::f32), da(9, Widened::kIn, DType::f32);
  const Held u(40, Widened::kAllRank, DType::bf16);
  backend.linear(at.input(), at.frozen(), {at.terms(), u, {}}, true, y);
  backend.linear_dx(at.gradient(), at.frozen(), at.v(), at.a(), dx);
  backend.gemm(Trans::yes, Trans::no, 1, at.v(), at.input(), 1, da);
  EXPECT_EQ(backend.workspace_bytes(), before);
  backend.linear(at.input(), at.frozen(), {at.terms_apart(), u, {}}, true, y);
  EXPECT_EQ(backend.workspace_bytes(), before + 2 * Matmul::kPanelFloats * 4);
}

// Sizes at which the widened operand and the rounded result are each cut into several panels.
TEST(Panels, JoinWithoutSeams) {
  CudaBackend backend({});
  const int64_t long_side = Matmul::kPanelFloats / 1024 + 3;
  struct Case {
    Trans ta, tb;
    int64_t m, n, k;
    bool narrow_left;
  };
  const Case cases[] = {{Trans::no, Trans::no, long_side, 2, 1024, true},
                        {Trans::yes, Trans::no, 1024, 2, long_side, true},
                        {Trans::no, Trans::no, 2, 1024, long_side, false},
                        {Trans::no, Trans::yes, 2, long_side, 1024, false},
                        {Trans::no, Trans::no, long_side, 1024, 2, true}};
  for (const Case& c : cases) {
    for (const DType out : kFloats) {
      SCOPED_TRACE(fmt::format("{}x{}x{} to {}", c.m, c.n, c.k, name_of(out)));
      const DType da = c.narrow_left ? DType::bf16 : DType::f32, db = c.narrow_left ? DType::f32 : DType::bf16;
      const Held a(c.ta == Trans::no ? drawn_matrix(1, c.m, c.k, da) : drawn_matrix(1, c.k, c.m, da), da);
      const Held b(c.tb == Trans::no ? drawn_matrix(2, c.k, c.n, db) : drawn_matrix(2, c.n, c.k, db), db);
      const Doubles old = drawn_matrix(3, c.m, c.n, out);
      const Held y(old, out);
      backend.gemm(c.ta, c.tb, 1, a, b, 1, y);
      EXPECT_TRUE(as_expected(y, product(c.ta, c.tb, 1, bounded(a.values()), bounded(b.values()), 1, bounded(old))));
    }
  }
}

}  // namespace
}  // namespace drover::cuda
