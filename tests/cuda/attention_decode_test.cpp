// Single query rows over more keys than a block takes, for every number of heads that share a kv head.
#include <gtest/gtest.h>

#include "kernels/cuda/attention_plans.h"
#include "tests/reference/compare.h"

namespace drover::cuda {
namespace {

using namespace reference;

constexpr int64_t kBlock = 16;

// Sequences in a pool whose blocks lie backwards; `rows` query rows of each, the last ones of their sequence.
struct Sequences {
  AttentionShape shape;
  Held q, k, v, o, lse;
  std::vector<std::vector<int32_t>> tables;
  std::vector<Segment> segments;
  Sequences(const std::vector<int64_t>& lengths, int64_t kv_heads, int64_t group, int64_t head_dim, DType type,
            int64_t rows = 1)
      : shape{kv_heads * group, kv_heads, head_dim, 0.2f},
        q(drawn_matrix(1, rows * count(lengths), kv_heads * group * head_dim, type), type),
        k(drawn_matrix(2, kBlock * 90, kv_heads * head_dim, type), type),
        v(drawn_matrix(3, kBlock * 90, kv_heads * head_dim, type), type),
        o(rows * count(lengths), kv_heads * group * head_dim, type),
        lse(rows * count(lengths), kv_heads * group, DType::f32) {
    int32_t next = 90;
    for (const int64_t keys : lengths) {
      std::vector<int32_t>& table = tables.emplace_back();
      for (int64_t b = 0; b < (keys + kBlock - 1) / kBlock; ++b) table.push_back(--next);
    }
    for (size_t i = 0; i < lengths.size(); ++i) {
      segments.push_back({.q0 = static_cast<int64_t>(i) * rows,
                          .nq = rows,
                          .nk = lengths[i],
                          .offset = lengths[i] - rows,
                          .block_table = tables[i].data()});
    }
  }
  static int64_t count(const std::vector<int64_t>& lengths) { return static_cast<int64_t>(lengths.size()); }
  AttentionCall call(std::span<const Segment> some) const { return {q, {k, v, kBlock}, some, shape, o, lse}; }
};

struct Fixture {
  Traffic traffic;
  Uploader uploader{nullptr};
  CudaAttention attention{nullptr, uploader, traffic, {.own_kernels_only = true}};
};

// Two rows of a sequence are a tile's, of which the second sees what a single row would: its q is set to be the same.
TEST(DecodeAttention, IsThatOfTiles) {
  const std::vector<int64_t> lengths = {600, 2, 257, 256, 65};
  for (const DType type : {DType::f32, DType::bf16}) {
    for (const int64_t group : {1, 3, 5, 9}) {
      for (const int64_t head_dim : {20, 64, 136}) {
        Fixture f;
        const Sequences single(lengths, 2, group, head_dim, type), pair(lengths, 2, group, head_dim, type, 2);
        for (int64_t i = 0; i < 5; ++i) {
          for (int64_t c = 0; c < single.q->cols; ++c) set(pair.q, 2 * i + 1, c, get(single.q, i, c));
        }
        f.attention.forward(single.call(single.segments));
        f.attention.forward(pair.call(pair.segments));
        for (int64_t i = 0; i < 5; ++i) {
          for (int64_t c = 0; c < single.o->cols; ++c) {
            ASSERT_NEAR(get(single.o, i, c), get(pair.o, 2 * i + 1, c), type == DType::f32 ? 2e-6 : 8e-3)
                << group << ' ' << head_dim << ' ' << i;
          }
          for (int64_t h = 0; h < single.shape.heads; ++h)
            ASSERT_NEAR(get(single.lse, i, h), get(pair.lse, 2 * i + 1, h), 1e-5);
        }
      }
    }
  }
}

// The same bits alone and among others, longer and shorter ones, again and again: counters are 0 between kernels.
TEST(DecodeAttention, ARowsBitsAreThoseOfItsOwnKeys) {
  Fixture f;
  const Sequences all({700, 300, 1, 256}, 2, 4, 64, DType::bf16), alone({700, 300, 1, 256}, 2, 4, 64, DType::bf16);
  for (int round = 0; round < 2; ++round) {
    f.attention.forward(all.call(all.segments));
    for (const Segment& s : alone.segments) f.attention.forward(alone.call({&s, 1}));
    EXPECT_TRUE(exactly(all.o, alone.o.values()));
    EXPECT_TRUE(exactly(all.lse, alone.lse.values()));
  }
}

TEST(DecodeAttention, MemoryForPartsGrowsWithLongerSequencesAndIsCounted) {
  Fixture f;
  const Sequences brief({250, 3}, 1, 4, 64, DType::bf16), longer({600}, 1, 4, 64, DType::bf16);
  f.attention.forward(brief.call(brief.segments));
  const int64_t before = f.attention.workspace_bytes();
  f.attention.forward(longer.call(longer.segments));
  EXPECT_GT(f.attention.workspace_bytes(), before);
  EXPECT_EQ(f.attention.workspace_bytes(), f.traffic.allocated_bytes);
  const int64_t allocations = f.traffic.allocations;
  for (int i = 0; i < 3; ++i) f.attention.forward(longer.call(longer.segments));
  EXPECT_EQ(f.traffic.allocations, allocations);
}

}  // namespace
}  // namespace drover::cuda
