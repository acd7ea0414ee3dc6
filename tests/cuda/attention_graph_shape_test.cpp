// Which of cuDNN's graphs a call takes, and the tables that it reads.
#include "kernels/cuda/attention_graph_shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace drover::cuda {
namespace {

using testing::ElementsAre;

// 8 query heads and 2 kv heads of 16, q, k and v side by side.
struct Call {
  std::vector<Segment> segments;
  AttentionCall call;
  AttentionGradients gradients;

  explicit Call(std::vector<int64_t> lengths, int64_t head_dim = 16, int64_t margin = 8, int64_t first = 0) {
    int64_t row = first;
    for (const int64_t n : lengths) {
      segments.push_back({.q0 = row, .nq = n, .k0 = row, .nk = n});
      row += n;
    }
    const int64_t q = 8 * head_dim, kv = 2 * head_dim, pitch = q + 2 * kv + margin;
    const auto tensor = [&](int64_t cols, int64_t to_next, DType type = DType::bf16) {
      return Tensor{nullptr, row, cols, to_next, type};
    };
    call = {.q = tensor(q, pitch),
            .kv = {.k = tensor(kv, pitch), .v = tensor(kv, pitch)},
            .segments = segments,
            .shape = {.heads = 8, .kv_heads = 2, .head_dim = head_dim, .scale = 0.25f},
            .o = tensor(q, q),
            .lse = tensor(8, 8, DType::f32)};
    gradients = {.d_o = tensor(q, q), .dq = tensor(q, pitch), .dk = tensor(kv, pitch), .dv = tensor(kv, pitch)};
  }
};

TEST(GraphShape, BucketsRoundUpAndKeepPowersOfTwo) {
  EXPECT_EQ(document_bucket(1), 1);
  EXPECT_EQ(document_bucket(3), 4);
  EXPECT_EQ(document_bucket(65), 128);
  for (const int64_t n : {64, 128, 512, 4096, 131072}) EXPECT_EQ(row_bucket(n), n);
  EXPECT_EQ(row_bucket(1), 64);
  EXPECT_EQ(row_bucket(65), 128);
  EXPECT_EQ(row_bucket(300), 320);
  EXPECT_EQ(row_bucket(4097), 5120);
  for (int64_t n = 1; n < 20000; n += 7) {
    const int64_t b = row_bucket(n);
    EXPECT_GE(b, n);
    EXPECT_LE(b, std::max<int64_t>(n + 63, n * 5 / 4 + 1));
    EXPECT_EQ(b % 64, 0);
    EXPECT_EQ(row_bucket(b), b);
  }
}

TEST(GraphShape, OnlyPackedCausalDocumentsFit) {
  EXPECT_TRUE(packed_causal(Call({5, 1, 7}).call, nullptr));
  const auto refused = [](auto&& change) {
    Call c({5, 7});
    change(c);
    c.call.segments = c.segments;
    return !packed_causal(c.call, &c.gradients);
  };
  EXPECT_FALSE(refused([](Call&) {}));
  EXPECT_TRUE(refused([](Call& c) { c.segments.clear(); }));
  EXPECT_TRUE(refused([](Call& c) { c.segments[1].q0 += 1; }));                            // a gap
  EXPECT_TRUE(refused([](Call& c) { c.segments[1].k0 = 0; }));                             // keys elsewhere
  EXPECT_TRUE(refused([](Call& c) { c.segments[1].nk = 12, c.segments[1].offset = 5; }));  // keys before the queries
  EXPECT_TRUE(refused([](Call& c) { c.segments[0].offset = 4; }));                         // not causal
  static const int32_t table[] = {0};
  EXPECT_TRUE(refused([](Call& c) { c.segments[0].block_table = table; }));
  EXPECT_TRUE(refused([](Call& c) { c.call.q.dtype = DType::f32; }));
  EXPECT_TRUE(refused([](Call& c) { c.call.shape.head_dim = 20; }));
  EXPECT_TRUE(refused([](Call& c) { c.call.shape.head_dim = 136; }));
  EXPECT_TRUE(refused([](Call& c) { c.call.kv.k.data = reinterpret_cast<void*>(8); }));  // not on 16 bytes
  EXPECT_TRUE(refused([](Call& c) { c.gradients.dv.pitch += 4; }));
  EXPECT_TRUE(refused([](Call& c) { c.segments = {{.q0 = 0, .nq = 1, .k0 = 0, .nk = 1}}; }));  // single rows only
}

TEST(GraphShape, CallsOfABucketShareAGraph) {
  const auto shape = [](const Call& c, bool backward, int64_t rows_seen) {
    return graph_shape(c.call, backward ? &c.gradients : nullptr, true, rows_seen);
  };
  EXPECT_EQ(shape(Call({70, 3, 100}), false, 192), shape(Call({5, 128, 9, 10}), false, 4096));
  EXPECT_NE(shape(Call({70}), false, 128), shape(Call({129}), false, 192));
  EXPECT_NE(shape(Call({70}), false, 128), shape(Call({70, 1}), false, 128));
  EXPECT_NE(shape(Call({70}), false, 128), shape(Call({70}, 16, 16), false, 128));  // other strides
  EXPECT_NE(shape(Call({70}), false, 128), shape(Call({70}), true, 128));
  EXPECT_FALSE(shape(Call({70}), false, 128).deterministic);  // a forward always is
  EXPECT_TRUE(shape(Call({70}), true, 128).deterministic);
}

// dq, dk and dv with their pitch of 200 and four query heads on each of dk's and dv's: 200·(1 + 2·4) elements a row;
// dense, 8·16 for each row of the bucket.
TEST(EqualShape, HasTheNumbersThemselvesAndNoTables) {
  EXPECT_FALSE(equal_shape(Call({5, 6}).call));
  const Call three({70, 70, 70}, 16, 8, 11);
  const GraphShape g = *equal_shape(three.call);
  EXPECT_TRUE(g.equal && !g.backward);
  EXPECT_EQ(g.documents, 3);
  EXPECT_EQ(g.longest, 70);
  EXPECT_EQ(g.rows, 0);
  EXPECT_EQ(g.pitch[GraphShape::kK], three.call.kv.k.pitch);
  EXPECT_TRUE(offset_pitches(g).empty());
  EXPECT_TRUE(document_tables(three.call, g).empty());
  EXPECT_NE(g, graph_shape(three.call, nullptr, false, 256));
}

TEST(GraphShape, TheWorkspaceIsLaidOutTheSmallerWay) {
  const auto rows = [](const Call& c, int64_t rows_seen) {
    return graph_shape(c.call, &c.gradients, false, rows_seen).rows;
  };
  EXPECT_EQ(rows(Call({4096}), 4096), 0);  // one document: dense
  std::vector<int64_t> mixed(63, 10);
  mixed.push_back(4096);
  EXPECT_EQ(rows(Call(mixed), 5120), 5121);                                // dense would be 64·4096 rows
  EXPECT_EQ(rows(Call(mixed, 24), 5120), 0);                               // head_dim 24: not by rows
  EXPECT_EQ(graph_shape(Call(mixed).call, nullptr, false, 5120).rows, 0);  // the forward has none
}

TEST(GraphShape, TheWorkspacesPartsBeginOnBoundaries) {
  std::vector<int64_t> mixed(63, 10);
  mixed.push_back(4096);
  for (const int64_t margin : {0, 8, 16, 24, 40}) {
    const Call c(mixed, 16, margin);
    const GraphShape g = graph_shape(c.call, &c.gradients, false, row_bucket(63 * 10 + 4096));
    ASSERT_GE(g.rows, 63 * 10 + 4096);
    for (const auto& [member, group] : {std::pair{GraphShape::kDQ, 1}, {GraphShape::kDK, 4}, {GraphShape::kDV, 4}}) {
      EXPECT_EQ(((g.rows - 1) * g.pitch[member] * group + 8 * 16) * 4 % 128, 0) << "margin " << margin;
    }
  }
}

TEST(GraphShape, TablesHoldLengthsAndBeginsByPitch) {
  const Call c({3, 0, 2}, 16, 8, 4);
  const GraphShape shape = graph_shape(c.call, &c.gradients, false, 64);
  ASSERT_EQ(shape.documents, 4);
  EXPECT_THAT(offset_pitches(shape), ElementsAre(200, 128, 8));
  const std::vector<char> image = document_tables(c.call, shape);
  ASSERT_EQ(static_cast<int64_t>(image.size()), document_tables_at(shape, -1));
  std::vector<int32_t> lengths(4);
  std::memcpy(lengths.data(), image.data(), 16);
  EXPECT_THAT(lengths, ElementsAre(3, 0, 2, 0));
  for (int64_t p = 0; p < 3; ++p) {
    const int64_t pitch = offset_pitches(shape)[static_cast<size_t>(p)];
    ASSERT_EQ(document_tables_at(shape, p) % 16, 0);
    std::vector<int64_t> begins(5);
    std::memcpy(begins.data(), image.data() + document_tables_at(shape, p), 40);
    EXPECT_THAT(begins, ElementsAre(4 * pitch, 7 * pitch, 7 * pitch, 9 * pitch, 9 * pitch));
  }
}

// A query row of each sequence over caches of 2000 rows one behind another, the first of which begins at row 64.
struct Decoded {
  std::vector<Segment> segments;
  AttentionCall call;

  explicit Decoded(const std::vector<int64_t>& keys) {
    const int64_t sequences = static_cast<int64_t>(keys.size()), rows = 64 + sequences * 2000;
    for (int64_t i = 0; i < sequences; ++i)
      segments.push_back({.q0 = 1 + i,
                          .nq = 1,
                          .k0 = 64 + i * 2000,
                          .nk = keys[static_cast<size_t>(i)],
                          .offset = keys[static_cast<size_t>(i)] - 1});
    const auto tensor = [](int64_t n, int64_t cols, int64_t pitch, DType type = DType::bf16) {
      return Tensor{nullptr, n, cols, pitch, type};
    };
    call = {.q = tensor(sequences + 1, 128, 192),
            .kv = {.k = tensor(rows, 32, 40), .v = tensor(rows, 32, 48)},
            .segments = segments,
            .shape = {.heads = 8, .kv_heads = 2, .head_dim = 16, .scale = 0.25f},
            .o = tensor(sequences + 1, 128, 136),
            .lse = tensor(sequences + 1, 8, 8, DType::f32)};
  }
};

TEST(DecodeShape, OnlyLongCachesAtOneDistanceFit) {
  const auto fits = [](auto&& change) {
    Decoded d({1500, 3, 1024});
    change(d);
    d.call.segments = d.segments;
    return decode_shape(d.call).has_value();
  };
  EXPECT_TRUE(fits([](Decoded&) {}));
  EXPECT_TRUE(fits([](Decoded& d) { d.segments.resize(1); }));
  EXPECT_FALSE(fits([](Decoded& d) { d.segments.clear(); }));
  EXPECT_FALSE(fits([](Decoded& d) { d.segments[0].nk = 1023, d.segments[2].nk = 1000; }));  // own kernels are as fast
  EXPECT_FALSE(fits([](Decoded& d) { d.segments[2].k0 += 8; }));                             // another distance
  EXPECT_FALSE(fits([](Decoded& d) { d.segments[2].q0 += 1; }));
  EXPECT_FALSE(fits([](Decoded& d) { d.segments[1].nq = 2; }));
  EXPECT_FALSE(fits([](Decoded& d) { d.segments[0].offset = 3; }));  // it does not see all
  EXPECT_FALSE(fits([](Decoded& d) {
    d.segments[2].nk = 2001, d.segments[2].offset = 2000;
  }));  // more than the distance: one cache would reach into the next
  static const int32_t table[] = {0};
  EXPECT_FALSE(fits([](Decoded& d) { d.segments[1].block_table = table; }));
  EXPECT_FALSE(fits([](Decoded& d) { d.call.q.dtype = DType::f32; }));
  EXPECT_FALSE(fits([](Decoded& d) { d.call.kv.v.pitch += 4; }));
  EXPECT_FALSE(packed_causal(Decoded({1500, 3, 1024}).call, nullptr));
}

TEST(DecodeShape, KeysAreABucketThatEndsWithinTheCache) {
  const auto keys = [](std::vector<int64_t> lengths) { return decode_shape(Decoded(lengths).call)->longest; };
  EXPECT_EQ(keys({1030}), 1280);
  EXPECT_EQ(keys({1280, 7}), 1280);
  EXPECT_EQ(keys({1800}), 2000);  // and not 2048
  EXPECT_EQ(decode_shape(Decoded({1500, 3}).call)->rows, 2000);
  EXPECT_EQ(decode_shape(Decoded({1500}).call)->rows, 0);
}

TEST(DecodeShape, TablesHoldBothLengths) {
  const Decoded d({1500, 3, 1024});
  const GraphShape shape = *decode_shape(d.call);
  const std::vector<char> image = document_tables(d.call, shape);
  ASSERT_EQ(image.size(), 32U);
  std::vector<int32_t> queries(3), keys(3);
  std::memcpy(queries.data(), image.data(), 12);
  std::memcpy(keys.data(), image.data() + document_tables_at(shape, 0), 12);
  EXPECT_THAT(queries, ElementsAre(1, 1, 1));
  EXPECT_THAT(keys, ElementsAre(1500, 3, 1024));
}

// Chunks of 70 and 3 rows over 100 and 9 keys, in a cache of 50 blocks of 4 rows.
struct Chunks {
  std::vector<int32_t> first, second = {7, 0, 9};
  std::vector<Segment> segments;
  AttentionCall call;

  Chunks() {
    for (int32_t b = 0; b < 25; ++b) first.push_back(40 - b);
    segments = {{.q0 = 2, .nq = 70, .nk = 100, .offset = 30, .block_table = first.data()},
                {.q0 = 72, .nq = 3, .nk = 9, .offset = 6, .block_table = second.data()}};
    const auto tensor = [](int64_t n, int64_t cols, int64_t pitch, DType type = DType::bf16) {
      return Tensor{nullptr, n, cols, pitch, type};
    };
    call = {.q = tensor(80, 128, 192),
            .kv = {.k = tensor(202, 32, 40), .v = tensor(202, 32, 48), .block_size = 4},
            .segments = segments,
            .shape = {.heads = 8, .kv_heads = 2, .head_dim = 16, .scale = 0.25f},
            .o = tensor(80, 128, 128),
            .lse = tensor(80, 8, 8, DType::f32)};
  }
};

TEST(PagedShape, OnlyChunksNextToEachOtherFit) {
  const auto fits = [](auto&& change) {
    Chunks c;
    change(c);
    c.call.segments = c.segments;
    return paged_shape(c.call).has_value();
  };
  EXPECT_TRUE(fits([](Chunks&) {}));
  EXPECT_FALSE(fits([](Chunks& c) { c.segments.clear(); }));
  EXPECT_FALSE(fits([](Chunks& c) { c.segments[1].q0 += 1; }));
  EXPECT_FALSE(fits([](Chunks& c) { c.segments[1].block_table = nullptr; }));
  EXPECT_FALSE(fits([](Chunks& c) { c.segments[1].nq = 1, c.segments[1].offset = 8; }));  // it decodes
  EXPECT_FALSE(fits([](Chunks& c) { c.segments[0].offset = 29; }));                       // not to the last key
  EXPECT_FALSE(fits([](Chunks& c) { c.call.kv.block_size = 0; }));
  EXPECT_FALSE(fits([](Chunks& c) { c.call.q.dtype = DType::f32; }));
  EXPECT_FALSE(fits([](Chunks& c) { c.call.kv.v.pitch += 4; }));
  EXPECT_FALSE(fits([](Chunks& c) { c.call.shape.head_dim = 136; }));
  EXPECT_FALSE(packed_causal(Chunks().call, nullptr));
}

TEST(PagedShape, HasFewBuckets) {
  const auto shape = [](int64_t rows, int64_t keys) {
    Chunks c;
    const std::vector<int32_t> table(static_cast<size_t>(keys));
    c.segments = {{.q0 = 2, .nq = rows, .nk = keys, .offset = keys - rows, .block_table = table.data()}};
    c.call.segments = c.segments;
    return *paged_shape(c.call);
  };
  EXPECT_EQ(shape(64, 64), shape(2, 4096));
  EXPECT_EQ(shape(64, 4097), shape(33, 16384));
  EXPECT_NE(shape(64, 4096), shape(64, 4097));
  EXPECT_NE(shape(64, 4096), shape(65, 4096));
  EXPECT_EQ(shape(300, 70000).longest, 512);
  EXPECT_EQ(shape(300, 70000).keys, 262144);
  EXPECT_EQ(shape(64, 64).blocks, 50);
}

TEST(PagedShape, TablesHoldLengthsBeginsAndBlocks) {
  const Chunks c;
  const GraphShape shape = *paged_shape(c.call);
  EXPECT_THAT(offset_pitches(shape), ElementsAre(192, 128, 8));  // of q, o and lse
  const std::vector<char> image = document_tables(c.call, shape);
  const auto read = [&](int64_t at, auto first, size_t count) {
    std::vector<decltype(first)> items(count);
    std::memcpy(items.data(), image.data() + at, count * sizeof(first));
    return items;
  };
  EXPECT_THAT(read(0, int32_t{}, 2), ElementsAre(70, 3));
  EXPECT_THAT(read(document_tables_at(shape, 1), int64_t{}, 3), ElementsAre(2 * 128, 72 * 128, 75 * 128));
  EXPECT_THAT(read(document_tables_at(shape, -1), int32_t{}, 2), ElementsAre(100, 9));
  ASSERT_EQ(static_cast<int64_t>(image.size()), blocks_at(shape) + 2 * 1024 * 4);
  EXPECT_EQ(read(blocks_at(shape), int32_t{}, 25), c.first);
  EXPECT_THAT(read(blocks_at(shape) + 1024 * 4, int32_t{}, 4), ElementsAre(7, 0, 9, 0));
}

}  // namespace
}  // namespace drover::cuda
