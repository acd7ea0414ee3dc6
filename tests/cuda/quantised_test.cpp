// Linears of quantised weights on CUDA: the values bit for bit, the kernel for a few rows against the one that reads
// plain numbers, and products in panels against plain loops on the values.
#include <gtest/gtest.h>

#include "kernels/cuda/gemv_quantised.h"
#include "tests/cuda/emulation/emulated_device.h"
#include "tests/cuda/quantised_cases.h"

namespace drover::cuda {
namespace {

struct Widening {
  Traffic traffic;
  Dequantiser widen{nullptr, traffic};
};

// A window's values, exactly, and nothing outside it.
testing::AssertionResult widened(Dequantiser& widen, const Quantised& q, std::array<int64_t, 4> window, DType type,
                                 int64_t gap) {
  const auto [row, rows, col, cols] = window;
  const Held got(Widened::poisoned(rows, cols), type, gap);
  widen(q.weight(), row, col, got);
  Doubles expected(rows, cols);
  const Doubles all = q.values(type);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) expected(i, j) = all(row + i, col + j);
  }
  return exactly(got, expected);
}

TEST(Quantised, EveryValueIsTheHosts) {
  CudaBackend backend({});
  Widening at;
  for (QuantisedCase c : quantised_cases()) {
    for (const Rounding rounding : kRoundings) {
      c.rounding = rounding;
      const Quantised q(backend, c);
      const int64_t out = c.out(), in = c.in;
      for (const DType type : kFloats) {
        SCOPED_TRACE(fmt::format("{} in {}", c.name(), drover::name_of(type)));
        EXPECT_TRUE(widened(at.widen, q, {0, out, 0, in}, type, 0));
        EXPECT_TRUE(widened(at.widen, q, {0, out, 0, in}, type, 64 - in % 8));
        EXPECT_TRUE(widened(at.widen, q, {1, out - 2, 3, in - 5}, type, 2));
        EXPECT_TRUE(widened(at.widen, q, {2, 1, in - 1, 1}, type, 0));
        EXPECT_TRUE(widened(at.widen, q, {out - 1, 1, 8, 16}, type, 8));
        EXPECT_TRUE(widened(at.widen, q, {0, out, 0, 0}, type, 8));
      }
    }
  }
}

// Every code of e4m3 that is a number, of absmax and of a level occurs above; NaN stays NaN.
TEST(Quantised, Fp8KeepsNaN) {
  CudaBackend backend({});
  Arena arena("weights", backend.memory(), 1 << 20);
  const auto w = backend.make_weight(arena, {1, 8, Format::fp8, 0, {.whole_cols = 8, .parts = {{0, 1}}}});
  static_cast<Fp8Weight&>(*w).load(
      backend, 0, {.rows = 1, .cols = 8, .codes = {0x7f, 0xff, 0x7e, 0xfe, 0, 0x80, 1, 0x38}, .scales = {2}});
  Widening at;
  const Held got(1, 8, DType::f32);
  at.widen(*w, 0, 0, got);
  const Doubles values = got.values();
  EXPECT_TRUE(std::isnan(values(0, 0)) && std::isnan(values(0, 1)));
  EXPECT_EQ(std::vector<double>(values.values.begin() + 2, values.values.end()),
            (std::vector<double>{896, -896, 0, 0, 0x1p-8, 2}));
}

// The bits of the kernel that reads plain numbers, so that what holds of its rows and their order holds here.
TEST(Quantised, AFewRowsAreAsThoseOfTheWidenedWeight) {
  CudaBackend backend({});
  for (QuantisedCase c : quantised_cases()) {
    for (const Rounding rounding : kRoundings) {
      c.rounding = rounding;
      const Quantised q(backend, c);
      for (int which = 0; which < 8; ++which) {
        const DType type = kFloats[which & 1], out = kFloats[which >> 1 & 1];
        const Held wide(q.values(type), type);
        for (const int64_t rows : {1, 2, 3, 8}) {
          SCOPED_TRACE(fmt::format("{} T {} case {}", c.name(), rows, which));
          const Held x(drawn_matrix(1, rows, c.in, type), type, which & 4 ? 1 : 0);
          const Doubles old = drawn_matrix(2, rows, c.out(), out);
          const Held got(old, out, 3), expected(old, out, 3);
          const float beta = which & 4 ? 1.0f : 0.0f;
          quantised_gemv(nullptr, x, q.weight(), {}, beta, got);
          gemv(nullptr, 1, x, wide, beta, expected);
          EXPECT_TRUE(exactly(got, expected.values()));
        }
      }
    }
  }
}

// A weight with so many outputs that a warp takes more of them.
TEST(Quantised, AFewRowsOfAWideWeight) {
  CudaBackend backend({});
  for (const Format format : {Format::fp8, Format::nf4}) {
    const Quantised q(backend, {.format = format, .nested = true, .in = 64, .whole_cols = 64, .parts = {{0, 8195}}});
    const Held x(drawn_matrix(1, 3, 64, DType::bf16), DType::bf16), y(3, 8195, DType::f32),
        wide(q.values(DType::bf16), DType::bf16), expected(3, 8195, DType::f32);
    backend.linear(x, q.weight(), {}, false, y);
    gemv(nullptr, 1, x, wide, 0, expected);
    EXPECT_TRUE(exactly(y, expected.values()));
  }
}

// Low-rank terms of two members with a gap between them, on tensors that have room for u and v or have not.
struct Linear {
  const Quantised& q;
  int64_t t, rank1, rank2, first, second;
  DType type, factor;
  Held x, dy, a, b1, b2, u, v;
  bool room;
  Linear(const Quantised& weight, int64_t rows, DType dtype, DType factors, bool with_room)
      : q(weight),
        t(rows),
        rank1(3),
        rank2(6),
        first((q.weight().out() + 2) / 3),
        second(q.weight().out() - first - 1),
        type(dtype),
        factor(factors),
        x(with_strip(drawn_matrix(1, t, in(), type), with_room), type, 2),
        dy(with_strip(drawn_matrix(3, t, out(), type), with_room), type, 2),
        a(drawn_matrix(5, rank1 + rank2, in(), factor), factor, 1),
        b1(drawn_matrix(6, first, rank1, factor), factor, 1),
        b2(drawn_matrix(7, second, rank2, factor), factor, 2),
        u(t, rank1 + rank2, type, 5),
        v(drawn_matrix(8, t, rank1 + rank2, type), type, 3),
        room(with_room) {
    if (!room) return;
    const Tensor strip = Tensor(dy).columns(out(), low_rank_strip(rank1 + rank2));
    Widened::fill(strip, Doubles(t, strip.cols));
    Widened::fill(strip.columns(0, rank1 + rank2), v.values());
  }
  static Doubles with_strip(const Doubles& values, bool room) {
    if (!room) return values;
    Doubles wide = Widened::poisoned(values.rows, values.cols + low_rank_strip(1));
    for (int64_t i = 0; i < values.rows; ++i) {
      for (int64_t j = 0; j < values.cols; ++j) wide(i, j) = values(i, j);
    }
    return wide;
  }
  int64_t in() const { return q.weight().in(); }
  int64_t out() const { return q.weight().out(); }
  Tensor input() const { return Tensor(x).columns(0, in()); }
  Tensor gradient() const { return Tensor(dy).columns(0, out()); }
  Tensor gradient_v() const { return room ? Tensor(dy).columns(out(), rank1 + rank2) : Tensor(v); }
  std::vector<LowRank> terms() const {
    return {{.a = Tensor(a).rows_from(0, rank1), .b = b1, .scale = 0.5f},
            {.a = Tensor(a).rows_from(rank1, rank2), .b = b2, .scale = 2, .column = out() - second}};
  }
  Matrix<Bounded> expected(bool low, const Doubles& old) const {
    std::vector<LowRankTerm<Bounded>> all;
    int64_t column = 0;
    for (const LowRank& term : low ? terms() : std::vector<LowRank>{}) {
      all.push_back(
          {bounded(values_of(Tensor(u).columns(column, term.a.rows))), bounded(values_of(term.b)), term.column});
      column += term.a.rows;
    }
    return reference::linear(bounded(values_of(input())), bounded(q.values(type)), all, bounded(old));
  }
  testing::AssertionResult u_is_right() const {
    int64_t column = 0;
    for (const LowRank& term : terms()) {
      const auto expected = product(Trans::no, Trans::yes, term.scale, bounded(values_of(input())),
                                    bounded(values_of(term.a)), 0, Matrix<Bounded>(t, term.a.rows));
      if (const auto found = close(values_of(Tensor(u).columns(column, term.a.rows)), expected, type); !found)
        return found;
      column += term.a.rows;
    }
    return u.guard_intact() ? testing::AssertionSuccess() : testing::AssertionFailure() << "u's surroundings";
  }
  Matrix<Bounded> expected_dx(bool low) const {
    return reference::linear_dx(bounded(values_of(gradient())), bounded(q.values(type)),
                                low ? bounded(v.values()) : Matrix<Bounded>(),
                                low ? bounded(a.values()) : Matrix<Bounded>());
  }
};

void check_linear(CudaBackend& backend, const Quantised& q, int64_t rows, int which) {
  const DType type = kFloats[which & 1], out = kFloats[which >> 1 & 1], factor = kFloats[which >> 2 & 1];
  const bool accumulate = which & 8, low = which & 16, room = which & 32;
  const Linear at(q, rows, type, factor, room);
  const Doubles old = drawn_matrix(9, rows, at.out(), out);
  const Held y(old, out, 3), dx(Widened::poisoned(rows, at.in()), out, 5);
  const std::vector<LowRank> terms = low ? at.terms() : std::vector<LowRank>{};
  const auto fused = [&](const auto& counts) { return counts.at({at.in(), at.out()}).fused; };
  const int64_t before = backend.linear_paths().forward.empty() ? 0 : fused(backend.linear_paths().forward);
  backend.linear(at.input(), q.weight(), {terms, low ? Tensor(at.u) : Tensor{}, {}}, accumulate, y);
  EXPECT_EQ(fused(backend.linear_paths().forward) - before, low && factor == type && (room || rows <= 8) ? 1 : 0);
  EXPECT_TRUE(!low || at.u_is_right());
  EXPECT_TRUE(as_expected(y, at.expected(low, accumulate ? old : Doubles(rows, at.out()))));

  const int64_t dx_before = backend.linear_paths().backward.empty() ? 0 : fused(backend.linear_paths().backward);
  backend.linear_dx(at.gradient(), q.weight(), low ? at.gradient_v() : Tensor{}, low ? Tensor(at.a) : Tensor{}, dx);
  EXPECT_EQ(fused(backend.linear_paths().backward) - dx_before, low && factor == type && room ? 1 : 0);
  EXPECT_TRUE(as_expected(dx, at.expected_dx(low)));
}

// Whole weights in one panel, and in as many as a small one makes of them.
TEST(Quantised, ProductsAreRightInAnyDtypeAndPanel) {
  for (QuantisedCase c : quantised_cases()) {
    if (c.in > 1000) continue;  // many sums, and nothing that shorter ones have not
    c.adapter_rank = 9;
    for (const int64_t most_bytes : {Dequantiser::kMostPanelBytes, int64_t{14000}}) {
      for (const Rounding rounding : kRoundings) {
        c.rounding = rounding;
        CudaBackend backend({.most_panel_bytes = most_bytes});
        const Quantised q(backend, c);
        for (const int64_t rows : {1, 3, 8, 9, 65}) {
          for (int which = 0; which < 64; ++which) {
            if (which % 3 != static_cast<int>(rounding)) continue;
            if (rows > 9 && (which / 3 % 2 == 0) == (most_bytes == Dequantiser::kMostPanelBytes))
              continue;  // they take long
            SCOPED_TRACE(fmt::format("{} T {} panel {} case {}", c.name(), rows, most_bytes, which));
            check_linear(backend, q, rows, which);
          }
        }
      }
    }
  }
}

// Without a strip, the fp32 tile of y is cut into columns.
TEST(Quantised, TermsApartAreRoundedOnce) {
  CudaBackend backend({});
  const Quantised q(backend, {.nested = true, .in = 64, .whole_cols = 64, .parts = {{0, 1040}}});
  const int64_t rows = Matmul::kPanelFloats / 1000;
  const Linear at(q, rows, DType::bf16, DType::bf16, false);
  const Held wide(rows, at.out(), DType::f32), narrow(rows, at.out(), DType::bf16);
  backend.linear(at.input(), q.weight(), {at.terms(), at.u, {}}, false, wide);
  backend.linear(at.input(), q.weight(), {at.terms(), at.u, {}}, false, narrow);
  const Doubles truth = wide.values(), values = narrow.values();
  size_t different = 0;
  for (size_t i = 0; i < values.values.size(); ++i)
    different += values.values[i] != rounded(truth.values[i], DType::bf16);
  EXPECT_LE(different, values.values.size() / 50);
}

TEST(Quantised, ThePanelIsCountedFromTheStartAndBounded) {
  const QuantisedCase c{.in = 256, .whole_cols = 256, .parts = {{0, 300}}, .adapter_rank = 9};
  constexpr int64_t kWhole = (300 + 64) * 256 * 2;
  for (const auto& [most, expected] :
       {std::pair{Dequantiser::kMostPanelBytes, std::max<int64_t>(kWhole, 300 * 320 * 2)},
        std::pair{int64_t{50000}, int64_t{50000}}}) {
    CudaBackend backend({.most_panel_bytes = most});
    const int64_t before = backend.workspace_bytes();
    const Quantised q(backend, c);
    EXPECT_EQ(backend.workspace_bytes() - before, expected);
    const int64_t allocated = backend.traffic().allocated_bytes;
    const Linear at(q, 40, DType::bf16, DType::bf16, true);
    const Held y(40, 300, DType::bf16), dx(40, 256, DType::bf16);
    backend.linear(at.input(), q.weight(), {at.terms(), at.u, {}}, false, y);
    backend.linear_dx(at.gradient(), q.weight(), at.gradient_v(), at.a, dx);
    EXPECT_EQ(backend.workspace_bytes() - before, expected);
    EXPECT_EQ(backend.traffic().allocated_bytes - allocated, expected);
  }
}

// What the weight says of itself is the room that its products take.
TEST(Quantised, AnAdaptedWeightAsksForRoomNextToXAndDy) {
  CudaBackend backend({});
  const QuantisedCase c{.in = 128, .whole_cols = 128, .parts = {{0, 50}}, .adapter_rank = 9};
  const Quantised adapted(backend, c);
  QuantisedCase without = c;
  without.adapter_rank = 0;
  const Quantised plain(backend, without);
  EXPECT_EQ(adapted.weight().x_pitch(), 128 + 64);
  EXPECT_EQ(adapted.weight().dy_pitch(), 50 + 64);
  EXPECT_TRUE(adapted.weight().room_for_a().empty() && adapted.weight().room_for_b().empty());
  const Held dy(4, 50, DType::bf16, 64);
  EXPECT_EQ(adapted.weight().room_for_v(dy).cols, 64);
  EXPECT_TRUE(adapted.weight().room_for_v(Held(4, 50, DType::bf16)).empty());
  EXPECT_EQ(plain.weight().x_pitch(), 128);
  EXPECT_TRUE(plain.weight().room_for_v(dy).empty());
}

// Each member's u, here of another scale, and then one kernel; or the widening, the factors' copies and one product.
TEST(Quantised, WhatTheDeviceIsAskedFor) {
  CudaBackend backend({});
  const Quantised q(backend, {.nested = true, .in = 64, .whole_cols = 64, .parts = {{0, 40}}, .adapter_rank = 9});
  std::vector<std::string> lines;
  const auto names = [&](int64_t rows, bool backward) {
    const Linear at(q, rows, DType::bf16, DType::bf16, true);
    const Held y(rows, 40, DType::bf16), dx(rows, 64, DType::bf16);
    lines.clear();
    emulation::done_by_device = &lines;
    if (backward) {
      backend.linear_dx(at.gradient(), q.weight(), at.gradient_v(), at.a, dx);
    } else {
      backend.linear(at.input(), q.weight(), {at.terms(), at.u, {}}, false, y);
    }
    emulation::done_by_device = nullptr;
    std::string all;
    for (const std::string& line : lines) all += line.substr(0, line.find(' ')) + " ";
    return all;
  };
  EXPECT_EQ(names(2, false), "gemv gemv quantised_gemv ");
  EXPECT_EQ(names(9, false), "product product copy dequantise copy copy product ");
  EXPECT_EQ(names(9, true), "dequantise copy product ");
}

// Rows of an adapter between rows of none: the codes are read, or widened, once for all of them.
TEST(Quantised, PartsShareTheWeight) {
  for (const Format format : {Format::fp8, Format::nf4}) {
    CudaBackend backend({});
    const Quantised q(backend, {.format = format, .in = 64, .whole_cols = 64, .parts = {{0, 40}}});
    for (const int64_t rows : {int64_t{2}, int64_t{30}}) {
      const Linear at(q, rows, DType::bf16, DType::bf16, false);
      const Held x(drawn_matrix(1, rows + 2, 64, DType::bf16), DType::bf16);
      const Doubles old = drawn_matrix(9, rows + 2, 40, DType::bf16);
      const Held y(old, DType::bf16, 3), alone(old, DType::bf16, 3);
      const std::vector<LowRank> terms = at.terms();
      const LinearPart parts[] = {{1, {}}, {rows, {terms, at.u, {}}}, {1, {}}};
      std::vector<std::string> lines;
      emulation::done_by_device = &lines;
      backend.linear_of_parts(x, q.weight(), parts, true, y);
      emulation::done_by_device = nullptr;
      const char* once = rows + 2 <= kGemvRows ? "quantised_gemv" : "dequantise";
      EXPECT_EQ(std::ranges::count_if(lines, [&](const auto& line) { return line.starts_with(once); }), 1);
      int64_t begin = 0;
      for (const LinearPart& part : parts) {
        backend.linear(Tensor(x).rows_from(begin, part.rows), q.weight(), part.low_rank, true,
                       Tensor(alone).rows_from(begin, part.rows));
        begin += part.rows;
      }
      const Doubles together = y.values(), apart = alone.values();
      for (size_t i = 0; i < together.values.size(); ++i) {
        EXPECT_NEAR(together.values[i], apart.values[i], 0x1p-7 * std::abs(apart.values[i]) + 1e-3) << i;
      }
    }
  }
}

}  // namespace
}  // namespace drover::cuda
