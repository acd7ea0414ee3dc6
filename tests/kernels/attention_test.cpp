// Attention against double: grouped heads, packed segments, block tables, offsets, extreme scores, and its backward.
#include <gtest/gtest.h>

#include "kernels/backend.h"
#include "kernels/base/error.h"
#include "tests/reference/compare.h"

namespace drover {
namespace {

using namespace reference;

constexpr DType kFloats[] = {DType::f32, DType::bf16};

Matrix<Bounded> bounded(const Held& held) { return as<Bounded>(held.values()); }

struct Problem {
  AttentionShape shape;
  DType type;
  Held q, k, v, o, lse, d_o, dq, dk, dv;
  Problem(int64_t queries, int64_t keys, int64_t heads, int64_t kv_heads, int64_t head_dim, DType dtype,
          double scale = 1)
      : shape{heads, kv_heads, head_dim, 1.0f / std::sqrt(static_cast<float>(head_dim))},
        type(dtype),
        q(drawn_matrix(1, queries, heads * head_dim, dtype, 2 * scale), dtype, 3),
        k(drawn_matrix(2, keys, kv_heads * head_dim, dtype, 2 * scale), dtype, 5),
        v(drawn_matrix(3, keys, kv_heads * head_dim, dtype), dtype, 1),
        o(drawn_matrix(4, queries, heads * head_dim, dtype), dtype, 2),
        lse(drawn_matrix(5, queries, heads, DType::f32), DType::f32, 1),
        d_o(drawn_matrix(6, queries, heads * head_dim, dtype), dtype, 4),
        dq(drawn_matrix(7, queries, heads * head_dim, dtype), dtype, 6),
        dk(drawn_matrix(8, keys, kv_heads * head_dim, dtype), dtype, 7),
        dv(drawn_matrix(9, keys, kv_heads * head_dim, dtype), dtype, 8) {}
  KvView view() const { return {k, v}; }
};

Segment causal(int64_t begin, int64_t length) {
  return {.q0 = begin, .nq = length, .k0 = begin, .nk = length, .offset = 0};
}

// Rows of `expected` outside every segment become what the tensor held before.
template <typename M>
void keep_outside(M& expected, const Doubles& before, std::span<const Segment> segments, bool keys) {
  std::vector<bool> inside(static_cast<size_t>(before.rows));
  for (const Segment& s : segments) {
    for (int64_t i = 0; i < (keys ? s.nk : s.nq); ++i) inside[static_cast<size_t>((keys ? s.k0 : s.q0) + i)] = true;
  }
  for (int64_t i = 0; i < before.rows; ++i) {
    for (int64_t j = 0; !inside[static_cast<size_t>(i)] && j < before.cols; ++j) expected(i, j) = Bounded(before(i, j));
  }
}

void check_forward(Backend& backend, const Problem& p, std::span<const Segment> segments) {
  auto expected = attention(bounded(p.q), bounded(p.k), bounded(p.v), 0, segments, p.shape);
  keep_outside(expected.o, p.o.values(), segments, false);
  keep_outside(expected.lse, p.lse.values(), segments, false);
  backend.attention(p.q, p.view(), segments, p.shape, p.o, p.lse);
  EXPECT_TRUE(as_expected(p.o, expected.o)) << "o";
  EXPECT_TRUE(as_expected(p.lse, expected.lse)) << "lse";
}

void check_backward(Backend& backend, const Problem& p, std::span<const Segment> segments) {
  // The truth starts from the o that the backend is given: its rounding to bf16 is the forward's error and not the
  // backward's.
  auto expected =
      attention_backward(bounded(p.q), bounded(p.k), bounded(p.v), segments, p.shape, bounded(p.o), bounded(p.d_o));
  keep_outside(expected.dq, p.dq.values(), segments, false);
  keep_outside(expected.dk, p.dk.values(), segments, true);
  keep_outside(expected.dv, p.dv.values(), segments, true);
  backend.attention_backward(p.q, p.view(), segments, p.shape, p.o, p.lse, p.d_o, p.dq, p.dk, p.dv);
  EXPECT_TRUE(as_expected(p.dq, expected.dq)) << "dq";
  EXPECT_TRUE(as_expected(p.dk, expected.dk)) << "dk";
  EXPECT_TRUE(as_expected(p.dv, expected.dv)) << "dv";
}

TEST(Attention, ForwardAndBackwardAtOddLengths) {
  const auto backend = backend_under_test();
  for (const DType type : kFloats) {
    for (const int64_t length : {1, 3, 17, 63, 64, 65, 129}) {
      for (const int64_t head_dim : {2, 6, 8, 10, 64}) {
        if (length > 65 && head_dim == 64) continue;
        SCOPED_TRACE(fmt::format("{} length {} head_dim {}", name_of(type), length, head_dim));
        const Problem p(length, length, 3, 1, head_dim, type);
        const Segment s[] = {causal(0, length)};
        check_forward(*backend, p, s);
        check_backward(*backend, p, s);
      }
    }
  }
}

TEST(Attention, PackedSegmentsEqualEachAlone) {
  const auto backend = backend_under_test();
  const Segment segments[] = {causal(2, 1), causal(3, 70), causal(73, 17),
                              causal(95, 64)};  // rows 0, 1 and 90..94 belong to nobody
  for (const DType type : kFloats) {
    const Problem p(160, 160, 6, 2, 8, type), alone(160, 160, 6, 2, 8, type);
    check_forward(*backend, p, segments);
    check_backward(*backend, p, segments);
    for (const Segment& s : segments) {
      backend->attention(alone.q, alone.view(), {&s, 1}, alone.shape, alone.o, alone.lse);
      backend->attention_backward(alone.q, alone.view(), {&s, 1}, alone.shape, alone.o, alone.lse, alone.d_o, alone.dq,
                                  alone.dk, alone.dv);
    }
    EXPECT_TRUE(exactly(alone.o, p.o.values()));
    EXPECT_TRUE(exactly(alone.dq, p.dq.values()));
    EXPECT_TRUE(exactly(alone.dk, p.dk.values()));
    EXPECT_TRUE(exactly(alone.dv, p.dv.values()));
  }
}

// More than 512 keys, of which a CPU sums dq in two halves.
TEST(Attention, LongSegments) {
  const auto backend = backend_under_test();
  const Segment segments[] = {causal(0, 577), {.q0 = 577, .nq = 70, .k0 = 577, .nk = 600, .offset = 530}};
  for (const DType type : kFloats) {
    for (const Segment& s : segments) {
      SCOPED_TRACE(fmt::format("{} nq {} nk {}", name_of(type), s.nq, s.nk));
      const Problem p(647, 1177, 3, 3, 6, type);
      check_forward(*backend, p, {&s, 1});
      check_backward(*backend, p, {&s, 1});
    }
  }
}

TEST(Attention, OffsetsShiftTheMask) {
  const auto backend = backend_under_test();
  const struct {
    int64_t nq, nk, offset;
  } cases[] = {{1, 130, 129}, {5, 70, 65},  {70, 100, 30}, {9, 9, 3}, {70, 40, -30},
               {65, 3, -64},  {10, 4, 100}, {3, 200, 0},   {2, 3, -5}};
  for (const DType type : kFloats) {
    for (const auto& [nq, nk, offset] : cases) {
      SCOPED_TRACE(fmt::format("{} nq {} nk {} offset {}", name_of(type), nq, nk, offset));
      const Problem p(nq + 1, nk + 2, 4, 2, 6, type);
      const Segment s[] = {{.q0 = 1, .nq = nq, .k0 = 2, .nk = nk, .offset = offset}};
      check_forward(*backend, p, s);
      check_backward(*backend, p, s);
    }
  }
}

// A row of each of three sequences over caches at one distance, tensors on 16-byte boundaries: what a decoder asks for,
// long enough for the ways that long caches take.
TEST(Attention, DecodedRowsOverLongCaches) {
  const auto backend = backend_under_test();
  for (const DType type : kFloats) {
    const Held q(drawn_matrix(1, 4, 4 * 64, type, 2), type, 8), k(drawn_matrix(2, 3 * 1600, 2 * 64, type, 2), type, 16),
        v(drawn_matrix(3, 3 * 1600, 2 * 64, type), type, 8), o(drawn_matrix(4, 4, 4 * 64, type), type, 8),
        lse(drawn_matrix(5, 4, 4, DType::f32), DType::f32, 4);
    const AttentionShape shape{4, 2, 64, 0.125f};
    for (const auto& lengths : {std::vector<int64_t>{1500, 7, 1024}, {1600}, {1025, 1025}}) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(type), fmt::join(lengths, " ")));
      std::vector<Segment> segments;
      for (const int64_t n : lengths) {
        const int64_t i = static_cast<int64_t>(segments.size());
        segments.push_back({.q0 = 1 + i, .nq = 1, .k0 = i * 1600, .nk = n, .offset = n - 1});
      }
      auto expected = attention(bounded(q), bounded(k), bounded(v), 0, segments, shape);
      keep_outside(expected.o, o.values(), segments, false);
      keep_outside(expected.lse, lse.values(), segments, false);
      backend->attention(q, {k, v}, segments, shape, o, lse);
      EXPECT_TRUE(as_expected(o, expected.o)) << "o";
      EXPECT_TRUE(as_expected(lse, expected.lse)) << "lse";
    }
  }
}

TEST(Attention, ARowThatSeesNothing) {
  const auto backend = backend_under_test();
  const Problem p(4, 4, 2, 1, 4, DType::f32);
  const Segment s[] = {{.q0 = 0, .nq = 4, .k0 = 0, .nk = 4, .offset = -2}};
  backend->attention(p.q, p.view(), s, p.shape, p.o, p.lse);
  EXPECT_EQ(get(p.lse, 1, 0), -INFINITY);
  EXPECT_EQ(get(p.o, 1, 0), 0);
  EXPECT_NE(get(p.o, 2, 0), 0);
  backend->attention_backward(p.q, p.view(), s, p.shape, p.o, p.lse, p.d_o, p.dq, p.dk, p.dv);
  EXPECT_EQ(get(p.dq, 1, 0), 0);
  EXPECT_EQ(get(p.dk, 3, 0), 0);
  EXPECT_EQ(get(p.dv, 2, 0), 0);
}

TEST(Attention, EmptySpans) {
  const auto backend = backend_under_test();
  const Problem p(4, 4, 2, 1, 4, DType::f32), untouched(4, 4, 2, 1, 4, DType::f32);
  const Segment s[] = {{.q0 = 1, .nq = 0, .k0 = 1, .nk = 0}, {.q0 = 1, .nq = 0, .k0 = 1, .nk = 2, .offset = 2}};
  backend->attention(p.q, p.view(), {}, p.shape, p.o, p.lse);
  backend->attention(p.q, p.view(), s, p.shape, p.o, p.lse);
  EXPECT_TRUE(exactly(p.o, untouched.o.values()));
  backend->attention_backward(p.q, p.view(), s, p.shape, p.o, p.lse, p.d_o, p.dq, p.dk, p.dv);
  Doubles dk = untouched.dk.values();  // two keys that no query sees have no gradient
  for (int64_t i = 1; i < 3; ++i) {
    for (int64_t j = 0; j < dk.cols; ++j) dk(i, j) = 0;
  }
  EXPECT_TRUE(exactly(p.dk, dk));
  EXPECT_TRUE(exactly(p.dq, untouched.dq.values()));
}

TEST(Attention, BlockTablesNameRows) {
  const auto backend = backend_under_test();
  for (const DType type : kFloats) {
    const int64_t block = 16;
    const Problem p(90, 12 * block, 6, 2, 10, type);
    const int32_t first[] = {11, 3, 0, 7, 5, 2}, second[] = {1};
    const Segment segments[] = {{.q0 = 0, .nq = 81, .k0 = 0, .nk = 85, .offset = 4, .block_table = first},
                                {.q0 = 85, .nq = 1, .k0 = 0, .nk = 13, .offset = 12, .block_table = second}};
    auto expected = attention(bounded(p.q), bounded(p.k), bounded(p.v), block, segments, p.shape);
    keep_outside(expected.o, p.o.values(), std::span(segments), false);
    KvView view = p.view();
    view.block_size = block;
    backend->attention(p.q, view, segments, p.shape, p.o, p.lse);
    EXPECT_TRUE(as_expected(p.o, expected.o));
  }
}

TEST(Attention, HeadsOfAnySize) {
  const auto backend = backend_under_test();
  const Segment segments[] = {causal(0, 1), causal(1, 8), causal(9, 66)};
  for (const DType type : kFloats) {
    for (const int64_t head_dim : {1, 5, 33, 67, 128, 129, 255, 256}) {
      SCOPED_TRACE(fmt::format("{} head_dim {}", name_of(type), head_dim));
      const Problem p(75, 75, 2, 1, head_dim, type);
      const auto few = std::span(segments).first(head_dim == 67 || head_dim == 256 ? 3 : 2);
      check_forward(*backend, p, few);
      check_backward(*backend, p, few);
    }
  }
}

// A document of one token sees itself alone: o = v, dv = Σ dO over the heads of the group, and nothing else has a
// gradient.
TEST(Attention, SegmentsOfOneToken) {
  const auto backend = backend_under_test();
  for (const DType type : kFloats) {
    const Problem p(12, 12, 4, 2, 24, type);
    const Segment segments[] = {causal(1, 1), causal(2, 1), causal(3, 5), causal(8, 1), causal(10, 1)};
    check_forward(*backend, p, segments);
    check_backward(*backend, p, segments);
    for (const int64_t row : {1, 2, 8, 10}) {
      for (int64_t j = 0; j < 4 * 24; ++j) EXPECT_EQ(get(p.o, row, j), get(p.v, row, j / 48 * 24 + j % 24));
      for (int64_t h = 0; h < 4; ++h) EXPECT_TRUE(std::isfinite(get(p.lse, row, h)));
    }
  }
}

TEST(Attention, DecodingManySequencesEqualsEachAlone) {
  const auto backend = backend_under_test();
  const int64_t block = 4, lengths[] = {1, 3, 4, 31, 33, 130, 64, 2};
  for (const DType type : kFloats) {
    for (const int64_t head_dim : {8, 20, 136}) {
      SCOPED_TRACE(fmt::format("{} head_dim {}", name_of(type), head_dim));
      const Problem p(14, 75 * block, 4, 2, head_dim, type), alone(14, 75 * block, 4, 2, head_dim, type);
      std::vector<int32_t> rows(75);  // every sequence has every so manieth block
      for (int32_t i = 0; i < 75; ++i) rows[static_cast<size_t>(i)] = i * 31 % 75;
      std::vector<Segment> segments;
      const int32_t* table = rows.data();
      for (int64_t i = 0; i < std::ssize(lengths); ++i) {
        segments.push_back(
            {.q0 = 13 - i, .nq = 1, .k0 = 0, .nk = lengths[i], .offset = lengths[i] - 1, .block_table = table});
        table += (lengths[i] + block - 1) / block;
      }
      segments.push_back({.q0 = 1,
                          .nq = 3,
                          .k0 = 0,
                          .nk = 9,
                          .offset = 6,
                          .block_table = rows.data()});  // a prompt's chunk comes along
      KvView view = p.view(), alone_view = alone.view();
      view.block_size = alone_view.block_size = block;
      auto expected = attention(bounded(p.q), bounded(p.k), bounded(p.v), block, segments, p.shape);
      keep_outside(expected.o, p.o.values(), segments, false);
      keep_outside(expected.lse, p.lse.values(), segments, false);
      backend->attention(p.q, view, segments, p.shape, p.o, p.lse);
      EXPECT_TRUE(as_expected(p.o, expected.o));
      EXPECT_TRUE(as_expected(p.lse, expected.lse));
      for (const Segment& s : segments)
        backend->attention(alone.q, alone_view, {&s, 1}, alone.shape, alone.o, alone.lse);
      EXPECT_TRUE(exactly(alone.o, p.o.values()));
      EXPECT_TRUE(exactly(alone.lse, p.lse.values()));
    }
  }
}

// Scores of ±1e4: the largest takes all, nothing overflows.
TEST(Attention, ExtremeScores) {
  const auto backend = backend_under_test();
  for (const DType type : kFloats) {
    const Problem p(70, 70, 3, 1, 8, type, 60);
    const Segment s[] = {causal(0, 70)};
    check_forward(*backend, p, s);
    check_backward(*backend, p, s);
  }
}

TEST(Attention, NotANumberIsNotHidden) {
  const auto backend = backend_under_test();
  for (const double bad : {std::nan(""), static_cast<double>(INFINITY)}) {
    Problem p(70, 70, 2, 1, 8, DType::f32);
    set(p.k, 66, 3, bad);
    const Segment s[] = {causal(0, 70)};
    backend->attention(p.q, p.view(), s, p.shape, p.o, p.lse);
    for (int64_t i = 0; i < 70; ++i) {
      const double o = get(p.o, i, 0);
      EXPECT_TRUE(i < 66 ? std::isfinite(o) : std::isnan(o) || std::isinf(bad)) << i;
    }
    backend->attention_backward(p.q, p.view(), s, p.shape, p.o, p.lse, p.d_o, p.dq, p.dk, p.dv);
    bool seen = false;
    for (const double x : p.dk.values().values) seen = seen || !std::isfinite(x);
    EXPECT_TRUE(seen);
  }
}

}  // namespace
}  // namespace drover
