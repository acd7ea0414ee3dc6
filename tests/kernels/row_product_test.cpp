// Generation's products: as exact as any, and a row has the same bits whatever rows share its pass.
#include "kernels/cpu/row_product.h"

#include <gtest/gtest.h>

#include <cstring>

#include "kernels/base/error.h"
#include "kernels/base/philox.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/row_kernels.h"
#include "tests/reference/compare.h"

namespace drover {
namespace {

using namespace reference;

constexpr DType kFloats[] = {DType::f32, DType::bf16};

Matrix<Bounded> bounded(const Held& held) { return as<Bounded>(held.values()); }

struct Size {
  int64_t t, in, out, rank;
};

// Rows few enough that weights are read where they lie and rows that share a copy of them, sums that end within a
// vector and sums of many blocks, outputs that fill no group.
constexpr Size kSizes[] = {{1, 1, 1, 1},       {3, 65, 17, 8},     {8, 71, 40, 4},   {8, 130, 70, 40},
                           {3, 70, 130, 65},   {8, 33, 5, 130},    {9, 2100, 70, 5}, {10, 9000, 5, 2},
                           {70, 577, 129, 16}, {30, 2000, 130, 70}};

class Operands {
 public:
  Operands(const Size& s, int which)
      : x_type(kFloats[which & 1]),
        w_type(kFloats[which >> 1 & 1]),
        y_type(kFloats[which >> 2 & 1]),
        x(drawn_matrix(1, s.t, s.in, x_type), x_type, 3),
        w(drawn_matrix(2, s.out, s.in, w_type), w_type, 1),
        u(drawn_matrix(4, s.t, s.rank, x_type), x_type, 2),
        b(drawn_matrix(5, (s.out + 1) / 2, s.rank, w_type), w_type),
        column(s.out - (s.out + 1) / 2) {}
  DType x_type, w_type, y_type;
  Held x, w, u, b;
  int64_t column;
};

TEST(RowProduct, EqualsTheReference) {
  cpu::RowProduct product(3);
  for (const Size& s : kSizes) {
    for (int which = 0; which < 16; ++which) {
      SCOPED_TRACE(fmt::format("T {} in {} out {} rank {} case {}", s.t, s.in, s.out, s.rank, which));
      const Operands o(s, which);
      const bool accumulate = which & 8;
      const Held y(drawn_matrix(3, s.t, s.out, o.y_type), o.y_type, 7);
      const cpu::LowRankProduct terms[] = {{o.u, o.b, o.column}};
      const std::vector<LowRankTerm<Bounded>> expected_terms{{bounded(o.u), bounded(o.b), o.column}};
      const auto old = accumulate ? bounded(y) : Matrix<Bounded>(s.t, s.out);
      const auto expected = reference::linear(bounded(o.x), bounded(o.w), expected_terms, old);
      const Held scaled(drawn_matrix(3, s.t, s.out, o.y_type), o.y_type, 7);
      const cpu::LowRankInput inputs[] = {{scaled, o.w, 0.5f}};
      product.linear({o.x, Tensor(o.w), inputs, terms, accumulate, y});
      EXPECT_TRUE(as_expected(y, expected));
      EXPECT_TRUE(as_expected(scaled, reference::product(Trans::no, Trans::yes, 0.5, bounded(o.x), bounded(o.w), 0.0,
                                                         Matrix<Bounded>(s.t, s.out))));
    }
  }
}

template <typename W>
void check_packed(int64_t rows, int64_t outputs, int64_t k, DType type) {
  SCOPED_TRACE(fmt::format("{} rows, {} outputs, {} numbers, {}", rows, outputs, k, name_of(type)));
  const Held x(drawn_matrix(1, rows, k, DType::f32), DType::f32, 3), w(drawn_matrix(2, outputs, k, type), type, 5),
      wide(w.values(), DType::f32, 1), sums(drawn_matrix(3, rows, outputs, DType::f32), DType::f32, 3),
      expected(drawn_matrix(3, rows, outputs, DType::f32), DType::f32, 3);
  const auto product = [&]<typename T>(const Held& ws, T* data, const Held& to) {
    return cpu::RowsTimesRows<float, T>{
        rows, outputs, k, {x->as<float>(), x->pitch}, {data, ws->pitch}, to->as<float>(), to->pitch};
  };
  const auto whole = [](int64_t n) { return static_cast<size_t>((n + 15) / 16 * 16); };
  std::vector<float> packed(whole(outputs) * whole(k));
  cpu::avx2::add_packed(product(w, w->as<W>(), sums), packed.data());
  cpu::avx2::add_cached(product(wide, wide->as<float>(), expected));
  EXPECT_TRUE(exactly(sums, expected.values()));
  EXPECT_TRUE(sums.guard_intact());
}

TEST(RowProduct, PackedWeightsGiveTheSameBits) {
  for (const int64_t k : {1, 7, 8, 9, 15, 16, 17, 31, 577, 768}) {
    for (const int64_t outputs : {1, 15, 16, 17, 63, 64}) {
      for (const int64_t rows : {1, 5, 6, 7, 13, 24}) {
        check_packed<float>(rows, outputs, k, DType::f32);
        check_packed<bf16>(rows, outputs, k, DType::bf16);
      }
    }
  }
}

// Wide rows, of which the scratch holds fewer than there are, with what low-rank inputs and terms copy of them.
TEST(RowProduct, ReadsAsManyRowsAsItsScratchHolds) {
  cpu::RowProduct product(2);
  constexpr int64_t kRows = 300, kIn = 8192, kOut = 8, kRank = 4;
  for (const DType a_type : {DType::bf16, DType::f32}) {
    const Held x(drawn_matrix(1, kRows, kIn, DType::bf16), DType::bf16),
        w(drawn_matrix(2, kOut, kIn, DType::bf16), DType::bf16), a(drawn_matrix(3, kRank, kIn, a_type), a_type),
        b(drawn_matrix(4, kOut, kRank, a_type), a_type);
    const auto answer = [&](int64_t begin, int64_t count) {
      const Held u(Doubles(count, kRank), DType::bf16), y(Doubles(count, kOut), DType::f32);
      const cpu::LowRankInput inputs[] = {{u, a, 0.5f}};
      const cpu::LowRankProduct terms[] = {{u, b}};
      product.linear({Tensor(x).rows_from(begin, count), Tensor(w), inputs, terms, false, y});
      return y.values();
    };
    const Doubles whole = answer(0, kRows);
    for (const int64_t row : {0, 149, 255, 256, 299}) {
      const Doubles alone = answer(row, 1);
      for (int64_t o = 0; o < kOut; ++o) EXPECT_EQ(alone(0, o), whole(row, o)) << row;
    }
  }
}

TEST(RowProduct, ARowHasTheSameBitsInAnyCompany) {
  cpu::RowProduct product(3);
  for (const Size& s : kSizes) {
    for (int which = 0; which < 8; ++which) {
      SCOPED_TRACE(fmt::format("T {} in {} out {} rank {} case {}", s.t, s.in, s.out, s.rank, which));
      const Operands o(s, which);
      const Held whole(drawn_matrix(3, s.t, s.out, o.y_type), o.y_type);
      const cpu::LowRankProduct terms[] = {{o.u, o.b, o.column}};
      product.linear({o.x, Tensor(o.w), {}, terms, false, whole});
      for (uint64_t draw = 0; draw < 20; ++draw) {
        const PhiloxBlock drawn = philox({7, 7}, draw);
        const auto& lanes = drawn.lane;
        const int64_t begin = lanes[0] % s.t, count = 1 + lanes[1] % (s.t - begin);
        const Held some(drawn_matrix(3, count, s.out, o.y_type), o.y_type);
        const cpu::LowRankProduct part[] = {{Tensor(o.u).rows_from(begin, count), o.b, o.column}};
        product.linear({Tensor(o.x).rows_from(begin, count), Tensor(o.w), {}, part, false, some});
        for (int64_t t = 0; t < count; ++t) {
          const Tensor got = Tensor(some).rows_from(t, 1), expected = Tensor(whole).rows_from(begin + t, 1);
          ASSERT_EQ(std::memcmp(got.data, expected.data, static_cast<size_t>(s.out * size_of(o.y_type))), 0)
              << "row " << begin + t << " among " << count << " from " << begin;
        }
      }
    }
  }
}

// The sums of one or three rows of x with twelve rows of codes, of which some have an exponent of 0.
template <cpu::Scales scales, typename F>
std::vector<float> sums_of_codes(const F& add_streamed) {
  constexpr int64_t kDepth = 192, kOutputs = 12, kRows = 3;
  std::vector<uint8_t> codes(kOutputs * kDepth);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 37 % 251);
  for (uint8_t& code : codes) code = (code & 0x7f) == 0x7f ? 0x08 : code;
  const std::vector<float> factors{0.25f, 2, 0x1p-10f, 8};  // of 128 columns each, in two rows
  std::vector<int32_t> factor_row(kOutputs);
  for (size_t o = 0; o < factor_row.size(); ++o) factor_row[o] = static_cast<int32_t>(o / 6);
  const Held x(drawn_matrix(1, kRows, kDepth, DType::f32), DType::f32);
  std::vector<float> sums(kRows * kOutputs);
  const cpu::RowsTimes<float, cpu::Fp8Rows<scales>> all{
      .rows = kRows,
      .outputs = kOutputs,
      .k = kDepth,
      .x = {x->as<float>(), x->pitch},
      .w = {codes.data(), kDepth, factors.data(), 2, factor_row.data(), 64, 7},
      .sums = sums.data(),
      .pitch = kOutputs};
  const cpu::Streams<float, cpu::Fp8Rows<scales>> streams{all.part(0, kRows, 0, 5), all.part(0, kRows, 5, 4),
                                                          all.part(0, kRows, 9, 3), all.part(0, kRows, 12, 0)};
  add_streamed(streams);
  return sums;
}

TEST(RowProduct, WordsOfCodesAreTheSameByGfni) {
  if (!__builtin_cpu_supports("avx512dq") || !cpu::has_gfni()) GTEST_SKIP() << "no AVX-512 with GFNI here";
  const auto expect_same = []<cpu::Scales scales>() {
    const auto by_shifts = sums_of_codes<scales>([](const auto& p) { cpu::avx512::add_streamed(p); });
    const auto by_gfni = sums_of_codes<scales>([](const auto& p) { cpu::avx512_gfni::add_streamed(p); });
    EXPECT_EQ(by_shifts, by_gfni);
    EXPECT_NE(by_shifts, std::vector<float>(by_shifts.size()));
  };
  expect_same.operator()<cpu::Scales::any>();
  expect_same.operator()<cpu::Scales::rounded>();
  expect_same.operator()<cpu::Scales::powers>();
}

// fp32 answers are the same on both kinds of CPU.
TEST(RowProduct, WiderVectorsGiveTheSameBits) {
  if (!__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) GTEST_SKIP() << "no AVX-512 here";
  for (const int64_t k : {1, 8, 15, 16, 17, 31, 40, 512}) {
    const Held x(drawn_matrix(1, 13, k, DType::f32), DType::f32, 3),
        w(drawn_matrix(2, 9, k, DType::f32), DType::f32, 1);
    const Held narrow(Doubles(13, 9), DType::f32), wide(Doubles(13, 9), DType::f32),
        streamed(Doubles(13, 9), DType::f32);
    const auto product = [&](const Held& sums) {
      return cpu::RowsTimesRows<float, float>{.rows = 13,
                                              .outputs = 9,
                                              .k = k,
                                              .x = {x->as<float>(), x->pitch},
                                              .w = {w->as<float>(), w->pitch},
                                              .sums = sums->as<float>(),
                                              .pitch = sums->pitch};
    };
    cpu::avx2::add_cached(product(narrow));
    const auto both = product(streamed);
    cpu::avx2::add_streamed<cpu::Rows<float>>(
        {both.part(0, 13, 0, 5), both.part(0, 13, 5, 3), both.part(0, 13, 8, 1), both.part(0, 13, 9, 0)});
    cpu::avx512::add_cached(product(wide));
    EXPECT_TRUE(exactly(wide, narrow.values())) << k;
    EXPECT_TRUE(exactly(streamed, narrow.values())) << k;
  }
}

TEST(RowProduct, WiderVectorsTurnThinWeightsToTheSameBits) {
  if (!__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) GTEST_SKIP() << "no AVX-512 here";
  for (const int64_t k : {1, 2, 7, 8, 15, 40, 63, 64}) {
    for (const int64_t outputs : {1, 8, 9, 16, 17, 33}) {
      for (const int64_t rows : {1, 2, 3, 8}) {
        const Held x(drawn_matrix(1, rows, k, DType::f32), DType::f32, 3),
            w(drawn_matrix(2, outputs, k, DType::bf16), DType::bf16, 1);
        const Doubles before = drawn_matrix(3, rows, outputs, DType::f32);
        const Held narrow(before, DType::f32), wide(before, DType::f32, 5);
        const auto product = [&](const Held& sums) {
          return cpu::RowsTimesRows<float, bf16>{.rows = rows,
                                                 .outputs = outputs,
                                                 .k = k,
                                                 .x = {x->as<float>(), x->pitch},
                                                 .w = {w->as<bf16>(), w->pitch},
                                                 .sums = sums->as<float>(),
                                                 .pitch = sums->pitch};
        };
        cpu::avx2::add_thin(product(narrow));
        cpu::avx512::add_thin(product(wide));
        EXPECT_TRUE(exactly(wide, narrow.values())) << k << " " << outputs << " " << rows;
        EXPECT_TRUE(wide.guard_intact());
      }
    }
  }
}

}  // namespace
}  // namespace drover
