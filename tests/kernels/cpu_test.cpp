// What is the CPU backend's own: its vectors, its memory, oneDNN's primitives, threads.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <set>
#include <utility>

#include "kernels/base/error.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/primitive_product.h"
#include "kernels/cpu/vector.h"
#include "tests/reference/compare.h"

namespace drover {
namespace {

using namespace reference;

// Every float in steps over the range of normal results, and what lies beyond it.
TEST(Cpu, ExpWithinTwoUlp) {
  double worst = 0;
  for (double x = -87.3; x < 88.37; x += 0.00037) {
    const float argument = static_cast<float>(x), got = cpu::exp(argument);
    const double truth = std::exp(static_cast<double>(argument));
    const double ulp = std::ldexp(1.0, std::ilogb(truth) - 23);
    worst = std::max(worst, std::abs(static_cast<double>(got) - truth) / ulp);
  }
  EXPECT_LE(worst, 2);
  EXPECT_EQ(cpu::exp(0.0f), 1.0f);
  EXPECT_EQ(cpu::exp(-1e4f), 0.0f);
  EXPECT_EQ(cpu::exp(-INFINITY), 0.0f);
  EXPECT_EQ(cpu::exp(1e4f), INFINITY);
  EXPECT_EQ(cpu::exp(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(cpu::exp(NAN)));
}

// A gate of g and an up of 1: g·σ(g), whose σ is within 3 ulp and 0 where e⁻ᵍ comes near the largest float.
TEST(Cpu, SiluWithinFourUlp) {
  const auto backend = make_cpu_backend(1);
  constexpr int kColumns = 17;  // two vectors and a rest, whose bits are the same
  const auto silu = [&](float g) {
    float gate_up[2 * kColumns], y[kColumns];
    std::fill_n(gate_up, kColumns, g);
    std::fill_n(gate_up + kColumns, kColumns, 1.0f);
    backend->swiglu(matrix(gate_up, 1, 2 * kColumns), matrix(y, 1, kColumns));
    for (const float one : y) EXPECT_EQ(std::bit_cast<uint32_t>(one), std::bit_cast<uint32_t>(y[0])) << g;
    return y[0];
  };
  double worst = 0;
  for (double g = -87.6; g < 100; g += 0.0037) {
    const float gate = static_cast<float>(g);
    const double truth = gate / (1 + std::exp(-static_cast<double>(gate)));
    worst = std::max(worst, std::abs(silu(gate) - truth) / std::ldexp(1.0, std::ilogb(truth) - 23));
  }
  EXPECT_LE(worst, 4);
  EXPECT_EQ(silu(-88.1f), 0.0f);
  EXPECT_EQ(silu(-1e30f), 0.0f);
  EXPECT_EQ(silu(1e30f), 1e30f);
  EXPECT_EQ(silu(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(silu(-INFINITY)));  // -∞·0
  EXPECT_TRUE(std::isnan(silu(NAN)));
}

// NaN, infinities and denormals among them.
TEST(Cpu, VectorsRoundAsScalarsDo) {
  constexpr uint64_t kPair = 16;
  for (uint64_t draw = 0; draw < 100000; draw += kPair) {
    float values[kPair];
    for (uint64_t i = 0; i < kPair; ++i) values[i] = std::bit_cast<float>(philox({1, 2}, draw + i).lane[0]);
    bf16 eight[kPair], sixteen[kPair];
    cpu::store(eight, cpu::load(values));
    cpu::store(eight + 8, cpu::load(values + 8));
    cpu::store_pair(sixteen, cpu::load_pair(values));
    for (uint64_t i = 0; i < kPair; ++i) {
      ASSERT_EQ(eight[i].bits, bf16(values[i]).bits) << values[i];
      ASSERT_EQ(sixteen[i].bits, bf16(values[i]).bits) << values[i];
    }
    float widened[kPair];
    cpu::store_pair(widened, cpu::load_pair(sixteen));
    for (uint64_t i = 0; i < kPair; ++i)
      ASSERT_EQ(std::bit_cast<uint32_t>(widened[i]), static_cast<uint32_t>(sixteen[i].bits) << 16);
  }
}

TEST(Cpu, MemoryIsZeroFilledAlignedAndMissing) {
  const auto backend = make_cpu_backend(1);
  const int64_t bytes = 5 << 20;
  void* block = backend->memory().allocate(bytes);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % 4096, 0u);
  for (int64_t i = 0; i < bytes; i += 4096) ASSERT_EQ(static_cast<char*>(block)[i], 0);
  backend->memory().release(block, bytes);
  try {
    backend->memory().allocate(int64_t{1} << 60);
    FAIL() << "an exbibyte was had";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::internal);
    EXPECT_NE(std::string(error.what()).find("1152921504606846976"), std::string::npos) << error.what();
  }
}

// What oneDNN's matmul primitive is asked for with bf16 on newer CPUs can be asked for in fp32 on any.
TEST(Cpu, PrimitivesAgreeInEveryOrientation) {
  cpu::PrimitiveProduct primitives(2);
  for (int which = 0; which < 8; ++which) {
    const Trans ta = which & 1 ? Trans::yes : Trans::no, tb = which & 2 ? Trans::yes : Trans::no;
    const bool accumulate = (which & 4) != 0;
    const int64_t m = 19, n = 35, k = 67;
    const Held a(ta == Trans::no ? drawn_matrix(1, m, k, DType::f32) : drawn_matrix(1, k, m, DType::f32), DType::f32,
                 3);
    const Held b(tb == Trans::no ? drawn_matrix(2, k, n, DType::f32) : drawn_matrix(2, n, k, DType::f32), DType::f32,
                 5);
    const Held c(drawn_matrix(3, m, n, DType::f32), DType::f32, 2);
    const auto expected = product(ta, tb, 0.25, as<Bounded>(a.values()), as<Bounded>(b.values()), accumulate ? 1 : 0,
                                  as<Bounded>(c.values()));
    primitives.whole({ta, tb, 0.25f, a, b, accumulate, c});
    EXPECT_TRUE(as_expected(c, expected)) << which;
  }
}

TEST(Cpu, WorkspaceIsBounded) {
  EXPECT_LE(cpu::Gemm(2).workspace_bytes(), int64_t{64} << 20);
  EXPECT_LE(backend_under_test()->workspace_bytes(), int64_t{104} << 20);  // and what attention may hold per thread
  // Of 16 MiB of packed operands, and of primitives.
  const cpu::Gemm gemm(2);
  const int64_t fewer = gemm.workspace_bytes() - gemm.workspace_bytes(128);
  if (gemm.multiplies_bf16()) {
    EXPECT_GT(fewer, int64_t{31} << 18);
  } else {
    EXPECT_EQ(fewer, int64_t{31} << 18);
  }
}

int64_t resident_bytes() {
  std::ifstream in("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  in >> pages >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// Each row is in one piece, and only the last piece is filled up; of wide rows with fewer than sixteen.
TEST(Cpu, RowsAreCutIntoPiecesOfFewSizes) {
  std::set<int64_t> sizes;
  for (const int64_t pitch : {int64_t{1}, int64_t{12000}, int64_t{30000}, int64_t{130000}}) {
    for (int64_t rows = 1; rows <= 5000; ++rows) {
      int64_t next = 0, end = 0;
      for (const cpu::Piece& piece : cpu::pieces_of(rows, pitch)) {
        ASSERT_EQ(piece.begin, next);
        ASSERT_GT(piece.count, 0);
        next += piece.count;
        end = piece.begin + piece.size;
        ASSERT_TRUE(piece.count == piece.size || next == rows) << rows;
        ASSERT_TRUE(piece.count == piece.size || piece.size * pitch <= std::max(int64_t{1} << 19, 16 * pitch));
        sizes.insert(piece.size);
      }
      ASSERT_EQ(next, rows);
      ASSERT_LE(end, cpu::in_pieces(rows));
    }
  }
  EXPECT_EQ(sizes.size(), 11u);
}

TEST(Cpu, RowsOfAPieceAreFilledUpWithZeros) {
  std::vector<bf16> copy;
  for (const DType type : {DType::bf16, DType::f32}) {
    const Held rows(drawn_matrix(1, 70, 5, type), type, 2);
    const Doubles values = rows.values(), got = values_of(cpu::filled(rows, {64, 6, 16}, copy));
    ASSERT_EQ(got.rows, 16);
    for (int64_t i = 0; i < 16; ++i) {
      for (int64_t j = 0; j < 5; ++j) EXPECT_EQ(got(i, j), i < 6 ? values(64 + i, j) : 0);
    }
    EXPECT_EQ(cpu::filled(rows, {0, 64, 64}, copy).data, rows->data);
  }
}

// A shape that was used since another one is kept, where there is room for two.
TEST(Cpu, ThePrimitiveThatWasNotUsedForLongestMakesRoom) {
  cpu::PrimitiveProduct primitives(1, 2);
  const Held a(8, 8, DType::f32), b(8, 8, DType::f32), c(8, 8, DType::f32);
  int64_t built = 0;
  const auto builds = [&](int64_t rows) {
    primitives.whole({Trans::no, Trans::no, 1, static_cast<Tensor>(a).rows_from(0, rows), b, false,
                      static_cast<Tensor>(c).rows_from(0, rows)});
    return primitives.built() != std::exchange(built, primitives.built());
  };
  for (const int64_t rows : {1, 2}) EXPECT_TRUE(builds(rows));
  EXPECT_FALSE(builds(1));
  EXPECT_TRUE(builds(3));
  EXPECT_FALSE(builds(1));
  EXPECT_TRUE(builds(2));
  EXPECT_GT(primitives.workspace_bytes(std::numeric_limits<int64_t>::max()), int64_t{2} << 20);
}

TEST(Cpu, PiecesOfRowsGiveTheProduct) {
  cpu::PrimitiveProduct primitives(2);
  const int64_t n = 35, k = 24;
  const Held b(drawn_matrix(2, n, k, DType::f32), DType::f32, 5);
  for (const int64_t m : {1, 15, 16, 33, 63, 64, 65, 100, 191, 700}) {
    const Held x(drawn_matrix(1, m, k, DType::f32), DType::f32, 3), y(drawn_matrix(4, m, n, DType::f32), DType::f32);
    for (const bool accumulate : {false, true}) {
      Doubles before(m, n), with_room(cpu::in_pieces(m), n);  // what lies in the room must not matter
      for (Doubles* threes : {&before, &with_room}) std::ranges::fill(threes->values, 3);
      const Held room(with_room, DType::f32, 1);
      const auto expected = product(Trans::no, Trans::yes, 0.5, as<Bounded>(x.values()), as<Bounded>(b.values()),
                                    accumulate ? 1 : 0, as<Bounded>(before));
      primitives.by_rows({Trans::no, Trans::yes, 0.5f, x, b, accumulate, room});
      EXPECT_TRUE(room.guard_intact());
      EXPECT_TRUE(close(values_of(static_cast<Tensor>(room).rows_from(0, m)), expected, DType::f32)) << m;
    }
    for (const bool accumulate : {false, true}) {
      const Held c(drawn_matrix(3, k, n, DType::f32), DType::f32, 2);
      const auto expected = product(Trans::yes, Trans::no, 0.5, as<Bounded>(x.values()), as<Bounded>(y.values()),
                                    accumulate ? 1 : 0, as<Bounded>(c.values()));
      primitives.by_sums({Trans::yes, Trans::no, 0.5f, x, y, accumulate, c});
      EXPECT_TRUE(as_expected(c, expected)) << m;
    }
  }
}

// Micro-batches of unpacked rows have another length each.
TEST(Cpu, ProductsOfManyLengthsTakeFewPrimitives) {
  cpu::PrimitiveProduct primitives(1);
  const Held x(drawn_matrix(1, 600, 128, DType::f32), DType::f32), w(drawn_matrix(3, 512, 128, DType::f32), DType::f32),
      dy(drawn_matrix(2, 600, 512, DType::f32), DType::f32), gradient(512, 128, DType::f32), y(640, 512, DType::f32);
  const Tensor all_dy = dy, all_x = x;
  const int64_t before = resident_bytes();
  for (int64_t rows = 1; rows <= 600; ++rows) {
    const Tensor some_x = all_x.rows_from(0, rows);
    primitives.by_rows({Trans::no, Trans::yes, 1, some_x, w, false, y});
    primitives.by_sums({Trans::yes, Trans::no, 1, all_dy.rows_from(0, rows), some_x, true, gradient});
  }
  EXPECT_EQ(primitives.built(), 2 * 7);  // of 16, 32, 64, 128, 256, 384 and 512 rows
  EXPECT_LE(resident_bytes() - before, primitives.workspace_bytes(600) + y->bytes());
}

// Of a weight wider than what fits the tile with many rows.
TEST(Cpu, LinearsOfManyLengthsBuildPrimitivesOnce) {
  cpu::Gemm gemm(1);
  if (!gemm.multiplies_bf16()) GTEST_SKIP() << "oneDNN's bf16 primitives are not used on this CPU";
  const Held x(2048, 64, DType::bf16), w(5000, 64, DType::bf16), y(2048, 5000, DType::bf16);
  const auto multiply = [&](int64_t first) {
    for (int64_t rows = first; rows <= 2048; rows += 97)
      gemm.linear(static_cast<Tensor>(x).rows_from(0, rows), cpu::WeightView(static_cast<Tensor>(w)), {}, false,
                  static_cast<Tensor>(y).rows_from(0, rows));
  };
  for (const int64_t first : {20, 60}) multiply(first);
  EXPECT_LE(gemm.primitives_built(),
            2 * 11 + 1);  // of 2048 outputs and of the rest, and one that was tried at the start
}

// One thread takes attention's backward in one pass, two take the last of three KV heads in halves of its keys; with
// more threads than (segment, KV head) pairs it runs in two passes.
TEST(Cpu, BitsDoNotDependOnTheThreads) {
  const Segment segments[] = {{.q0 = 0, .nq = 650, .k0 = 0, .nk = 650, .offset = 0},
                              {.q0 = 650, .nq = 50, .k0 = 650, .nk = 70, .offset = 20},
                              {.q0 = 700, .nq = 70, .k0 = 720, .nk = 600, .offset = 530}};
  const AttentionShape shape{6, 3, 16, 0.25f};
  const int64_t queries = 770, keys = 1320;
  const Held q(drawn_matrix(1, queries, 96, DType::bf16, 2), DType::bf16, 3),
      k(drawn_matrix(2, keys, 48, DType::bf16, 2), DType::bf16, 5),
      v(drawn_matrix(3, keys, 48, DType::bf16), DType::bf16, 1),
      d_o(drawn_matrix(4, queries, 96, DType::bf16), DType::bf16, 4),
      x(drawn_matrix(5, 70001, 1, DType::f32, 1e3), DType::f32);
  const std::span<const Segment> all_of_them(segments);
  for (const auto some : {all_of_them.first(1), all_of_them, all_of_them.last(1)}) {
    std::vector<std::vector<double>> results;
    for (const int threads : {1, 2, 6, 13}) {
      const auto backend = make_cpu_backend(threads);
      const Held o(queries, 96, DType::bf16), lse(queries, 6, DType::f32), dq(queries, 96, DType::bf16),
          dk(keys, 48, DType::bf16), dv(keys, 48, DType::bf16), sum(1, 1, DType::f64);
      for (const Held* held : {&o, &lse, &dq, &dk, &dv}) backend->zero(*held);
      backend->attention(q, {k, v}, some, shape, o, lse);
      backend->attention_backward(q, {k, v}, some, shape, o, lse, d_o, dq, dk, dv);
      backend->sum_squares(x, sum);
      std::vector<double>& all = results.emplace_back();
      for (const Held* held : {&o, &lse, &dq, &dk, &dv, &sum}) {
        const Doubles values = held->values();
        all.insert(all.end(), values.values.begin(), values.values.end());
      }
    }
    for (const std::vector<double>& other : results) EXPECT_EQ(results[0], other);
  }
}

}  // namespace
}  // namespace drover
