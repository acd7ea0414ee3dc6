// The counting backend: addresses nobody reads, FLOPs by formula, shapes in words.
#include "kernels/count/count.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/base/error.h"
#include "kernels/quantised_weight.h"

namespace drover {
namespace {

TEST(Count, MemoryIsNowhereAndDistinct) {
  CountBackend b;
  void *first = b.memory().allocate(int64_t{1} << 44), *second = b.memory().allocate(1),
       *third = b.memory().allocate(1);
  EXPECT_NE(first, nullptr);
  EXPECT_GE(static_cast<char*>(second) - static_cast<char*>(first), int64_t{1} << 44);
  EXPECT_NE(second, third);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(third) % 4096, 0u);
  EXPECT_EQ(b.memory().where(), Where::nowhere);
  Arena arena("plan", b.memory(), int64_t{1} << 50);
  EXPECT_EQ(arena.tensor(1 << 20, 1 << 20, DType::bf16).where, Where::nowhere);
  EXPECT_EQ(arena.peak_bytes(), int64_t{1} << 41);
}

TEST(Count, FlopsByFormula) {
  CountBackend b;
  Arena arena("plan", b.memory(), int64_t{1} << 40);
  const auto t = [&](int64_t rows, int64_t cols) { return arena.tensor(rows, cols, DType::bf16); };
  b.gemm(Trans::yes, Trans::no, 1, t(7, 3), t(7, 5), 0, t(3, 5));
  EXPECT_EQ(b.counts().at("gemm").flops, 2 * 3 * 5 * 7);
  const auto w = b.make_weight(arena, {9, 8, Format::bf16});
  const LowRank term{.a = t(4, 8), .b = t(6, 4), .column = 2};
  b.linear(t(11, 8), *w, {{&term, 1}, t(11, 4), {}}, false, t(11, 9));
  EXPECT_EQ(b.counts().at("linear").flops, 2 * 11 * 8 * 9 + 2 * 11 * 8 * 4 + 2 * 11 * 6 * 4);
  b.linear_dx(t(11, 9), *w, t(11, 4), t(4, 8), t(11, 8));
  b.linear_dx(t(11, 9), *w, {}, {}, t(11, 8));
  EXPECT_EQ(b.counts().at("linear_dx").flops, 2 * (2 * 11 * 8 * 9) + 2 * 11 * 4 * 8);
  EXPECT_EQ(b.calls("linear_dx"), 2);
  EXPECT_EQ(b.calls("rope"), 0);

  // 5 causal rows see 1+2+3+4+5 keys; a row of a decode step sees all 100.
  const Segment segments[] = {{.nq = 5, .nk = 5, .offset = 0}, {.nq = 1, .nk = 100, .offset = 99}};
  const AttentionShape shape{6, 2, 8, 1};
  const Tensor lse = arena.tensor(6, 6, DType::f32);
  b.attention(t(6, 48), {t(105, 16), t(105, 16)}, segments, shape, t(6, 48), lse);
  EXPECT_EQ(b.counts().at("attention").flops, 4 * 6 * 8 * 115);
  b.attention_backward(t(6, 48), {t(105, 16), t(105, 16)}, segments, shape, t(6, 48), lse, t(6, 48), t(6, 48),
                       t(105, 16), t(105, 16));
  EXPECT_EQ(b.counts().at("attention_backward").flops, 10 * 6 * 8 * 115);
  int64_t sum = 0;
  for (const auto& [name, count] : b.counts()) sum += count.flops;
  EXPECT_EQ(b.total_flops(), sum);
}

TEST(Count, BytesOfOperandsReadOnceAndWrittenOnce) {
  CountBackend b;
  Arena arena("plan", b.memory(), int64_t{1} << 40);
  const auto t = [&](int64_t rows, int64_t cols) { return arena.tensor(rows, cols, DType::bf16); };
  b.linear(t(11, 8), DenseWeight(t(9, 8)), {}, false, t(11, 9));
  EXPECT_EQ(b.counts().at("linear").bytes, 2 * (11 * 8 + 9 * 8 + 11 * 9));
  b.linear(t(11, 8), DenseWeight(t(9, 8)), {}, true, t(11, 9));  // y is read too
  EXPECT_EQ(b.counts().at("linear").bytes, 4 * (11 * 8 + 9 * 8 + 11 * 9) + 2 * 11 * 9);
  b.add(t(3, 4), arena.tensor(3, 4, DType::f32));
  EXPECT_EQ(b.counts().at("add").bytes, 12 * (2 + 2 * 4));
  b.gather_rows(t(1000, 4), arena.tensor(5, 1, DType::i32), t(5, 4));  // five rows of x, not all of it
  EXPECT_EQ(b.counts().at("gather_rows").bytes, 5 * 4 + 2 * (5 * 4 * 2));
}

// Codes, the scales of all blocks that are touched, and which of them is each row's.
TEST(Count, BytesOfQuantisedWeightsAreThoseOfCodesAndScales) {
  CountBackend b;
  Arena arena("plan", b.memory(), int64_t{1} << 40);
  const auto t = [&](int64_t rows, int64_t cols) { return arena.tensor(rows, cols, DType::bf16); };
  WeightShape shape{.out = 160, .in = 192, .format = Format::fp8};
  // Rows 100-259 touch blocks 0 to 2, columns 64-255 blocks 0 and 1.
  shape.scaling = {.blocks = {128, 128}, .col = 64, .whole_cols = 320, .parts = {{100, 160}}};
  EXPECT_EQ(b.make_weight(arena, shape)->bytes(), 160 * 192 + 3 * 2 * 4 + 160 * 4);
  shape.scaling.parts = {{100, 100}, {200, 60}};  // blocks 0 and 1; 1 and 2
  EXPECT_EQ(b.make_weight(arena, shape)->bytes(), 160 * 192 + 4 * 2 * 4 + 160 * 4);
  shape.scaling.blocks = {1, 0};
  EXPECT_EQ(b.make_weight(arena, shape)->bytes(), 160 * 192 + 160 * 4 + 160 * 4);
  shape.format = Format::nf4;
  const int64_t plain = 160 * 192 / 2 + 160 * 3 * 4;
  EXPECT_EQ(b.make_weight(arena, shape)->bytes(), plain);
  shape.scaling.nested = true;
  EXPECT_EQ(b.make_weight(arena, shape)->bytes(), plain) << "rows are laid out with an absmax each";
  BackendTraits traits;
  traits.lay_out = lay_out_quantised;
  CountBackend other(traits);
  // Rows of 5 blocks: 100-199 are in runs 1 to 3 of 256 blocks, 200-259 in runs 3 to 5.
  const auto w = other.make_weight(arena, shape);
  EXPECT_EQ(w->bytes(), 160 * 192 / 2 + 160 * 3 + 256 * 4 + (3 + 3) * 4 + 160 * 4 + 160 * 4);
  other.linear(t(11, 192), *w, {}, false, t(11, 160));
  EXPECT_EQ(other.counts().at("linear").bytes, 2 * 11 * (192 + 160) + w->bytes());
}

TEST(Count, OfAnOpThatOthersCarryOutThoseAreCounted) {
  CountBackend b;
  Arena arena("plan", b.memory(), int64_t{1} << 40);
  const auto t = [&](int64_t rows, int64_t cols) { return arena.tensor(rows, cols, DType::bf16); };
  const LowRankGradient terms[] = {{t(5, 4), t(6, 4), arena.tensor(6, 4, DType::f32), 1, 0},
                                   {t(5, 4), t(3, 4), arena.tensor(3, 4, DType::f32), 1, 6}};
  b.low_rank_backward(t(5, 9), terms, t(5, 10));
  EXPECT_EQ(b.calls("gemm"), 4);
  EXPECT_EQ(b.calls("zero"), 1);
  EXPECT_EQ(b.calls("low_rank_backward"), 0);
  EXPECT_EQ(b.total_flops(), 4 * 5 * 9 * 4);
  const CopyPair pairs[] = {{t(2, 3), t(2, 3)}, {t(1, 1), t(1, 1)}};
  b.copy_all(pairs);
  EXPECT_EQ(b.calls("copy"), 2);
  EXPECT_EQ(b.calls("copy_all"), 0);
}

TEST(Count, VisiblePairsAreThoseOfEveryQuery) {
  for (const int64_t nq : {0, 1, 2, 7, 40}) {
    for (const int64_t nk : {0, 1, 5, 7, 39, 64}) {
      for (int64_t offset = -45; offset <= 70; ++offset) {
        int64_t pairs = 0;
        for (int64_t i = 0; i < nq; ++i) pairs += std::clamp<int64_t>(i + offset + 1, 0, nk);
        EXPECT_EQ(visible_pairs({.nq = nq, .nk = nk, .offset = offset}), pairs) << nq << ' ' << nk << ' ' << offset;
      }
    }
  }
}

TEST(Count, ShapesOnRequest) {
  CountBackend b;
  Arena arena("plan", b.memory(), int64_t{1} << 40);
  const auto t = [&](int64_t rows, int64_t cols) { return arena.tensor(rows, cols, DType::bf16); };
  const auto w = b.make_weight(arena, {9, 8, Format::bf16});
  b.linear(t(2, 8), *w, {}, false, t(2, 9));
  EXPECT_TRUE(b.shapes().empty());
  b.record_shapes(true);
  b.linear(t(2, 8), *w, {}, false, t(2, 9));
  b.linear_dx(t(2, 9), *w, {}, {}, t(2, 8));
  EXPECT_EQ(b.shapes(), (std::vector<std::string>{"linear (2,8)x(9,8)", "linear_dx (2,9)x(9,8)"}));
}

TEST(Count, ShapesThatDoNotFitAreABug) {
  CountBackend b;
  Arena arena("plan", b.memory(), int64_t{1} << 40);
  const auto t = [&](int64_t rows, int64_t cols) { return arena.tensor(rows, cols, DType::bf16); };
  try {
    b.linear(t(2, 8), *b.make_weight(arena, {9, 7, Format::bf16}), {}, false, t(2, 9));
    FAIL() << "multiplied what does not fit";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::internal);
    EXPECT_NE(std::string(error.what()).find("linear's shapes fit"), std::string::npos) << error.what();
  }
}

TEST(Count, DownloadGivesZeros) {
  CountBackend b;
  Arena arena("plan", b.memory(), 4096);
  std::vector<float> host(6, 1);
  b.download(arena.tensor(2, 3, DType::f32), host.data());
  EXPECT_EQ(host, std::vector<float>(6, 0));
}

}  // namespace
}  // namespace drover
