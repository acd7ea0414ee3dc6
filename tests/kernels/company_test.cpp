// What a pass of generation computes between its products, on the CPU: a token has the same bits whatever tokens share
// its pass and wherever in the pass it stands.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/base/error.h"
#include "kernels/base/philox.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/reference/compare.h"

namespace drover {
namespace {

using namespace reference;

constexpr DType kFloats[] = {DType::f32, DType::bf16};

uint64_t draw(uint64_t& count, uint64_t below) {
  const PhiloxBlock block = philox({3, 5}, count++);
  return block.lane[0] % below;
}

testing::AssertionResult same_bits(Tensor got, Tensor expected) {
  for (int64_t r = 0; r < got.rows; ++r) {
    const Tensor a = got.rows_from(r, 1), b = expected.rows_from(r, 1);
    if (std::memcmp(a.data, b.data, static_cast<size_t>(a.bytes())) != 0) {
      return testing::AssertionFailure() << "row " << r << " of " << got.rows;
    }
  }
  return testing::AssertionSuccess();
}

// A prompt of 600 tokens in blocks that lie anywhere, in chunks of any length: one query decoded, several tiles at
// once, tiles that begin anywhere; between the queries of another sequence.
TEST(Company, AttentionOfAPromptInAnyChunks) {
  constexpr int64_t kTokens = 600, kBlock = 16, kBlocks = 44;
  const AttentionShape shape{.heads = 6, .kv_heads = 2, .head_dim = 20, .scale = 0.2f};
  cpu::CpuBackend backend(2);
  std::vector<int32_t> table(kBlocks);
  for (int32_t i = 0; i < kBlocks; ++i) table[static_cast<size_t>(i)] = i * 7 % kBlocks;
  for (const DType type : kFloats) {
    const Held q(drawn_matrix(1, kTokens, 120, type, 3), type, 3),
        k(drawn_matrix(2, kBlocks * kBlock, 40, type, 3), type, 5),
        v(drawn_matrix(3, kBlocks * kBlock, 40, type), type, 1);
    const KvView kv{.k = k, .v = v, .block_size = kBlock};
    const Held whole(Doubles(kTokens, 120), type), whole_lse(Doubles(kTokens, 6), DType::f32);
    const Segment all[] = {{.nq = kTokens, .nk = kTokens, .block_table = table.data()}};
    backend.attention(q, kv, all, shape, whole, whole_lse);

    uint64_t count = 0;
    for (int split = 0; split < 12; ++split) {
      const uint64_t longest = split % 3 == 0 ? 3 : split % 3 == 1 ? 40 : 150;
      for (int64_t done = 0; done < kTokens;) {
        const int64_t n = std::min<int64_t>(kTokens - done, static_cast<int64_t>(1 + draw(count, longest)));
        const int64_t before = static_cast<int64_t>(draw(count, 70)), after = static_cast<int64_t>(draw(count, 3));
        const Held pass(drawn_matrix(4, before + n + after, 120, type), type, 2);
        const Held o(Doubles(before + n + after, 120), type), lse(Doubles(before + n + after, 6), DType::f32);
        backend.copy(Tensor(q).rows_from(done, n), Tensor(pass).rows_from(before, n));
        const Segment segments[] = {
            {.nq = before, .nk = before + 9, .offset = 9, .block_table = table.data() + 2},
            {.q0 = before, .nq = n, .nk = done + n, .offset = done, .block_table = table.data()},
            {.q0 = before + n, .nq = after, .nk = after, .block_table = table.data() + 4}};
        backend.attention(pass, kv, segments, shape, o, lse);
        ASSERT_TRUE(same_bits(Tensor(o).rows_from(before, n), Tensor(whole).rows_from(done, n)))
            << name_of(type) << " " << n << " queries from " << done;
        ASSERT_TRUE(same_bits(Tensor(lse).rows_from(before, n), Tensor(whole_lse).rows_from(done, n)));
        done += n;
      }
    }
  }
}

// Keys in blocks are dealt to threads where there are too few query tiles and heads for them.
class LongPrompt {
 public:
  // What is expected of tokens from `first` on is computed by one thread.
  LongPrompt(int64_t first, int64_t tokens, const AttentionShape& shape, DType type)
      : tokens_(tokens),
        shape_(shape),
        table_(static_cast<size_t>((tokens + kBlock - 1) / kBlock)),
        q_(drawn_matrix(1, tokens, shape.heads * shape.head_dim, type, 2), type, 3),
        k_(drawn_matrix(2, std::ssize(table_) * kBlock, shape.kv_heads * shape.head_dim, type, 2), type, 5),
        v_(drawn_matrix(3, std::ssize(table_) * kBlock, shape.kv_heads * shape.head_dim, type), type, 1),
        o_(tokens, shape.heads * shape.head_dim, type),
        lse_(tokens, shape.heads, DType::f32) {
    for (size_t i = 0; i < table_.size(); ++i) table_[i] = static_cast<int32_t>(table_.size() - 1 - i);
    compute(1, first, tokens, o_, lse_);
  }

  // Tokens [begin, end) over the keys of those in front of them.
  void check(int threads, int64_t begin, int64_t end) const {
    SCOPED_TRACE(fmt::format("{} threads, tokens {} to {}", threads, begin, end));
    const Held o(tokens_, shape_.heads * shape_.head_dim, q_->dtype), lse(tokens_, shape_.heads, DType::f32);
    compute(threads, begin, end, o, lse);
    EXPECT_TRUE(same_bits(Tensor(o).rows_from(begin, end - begin), Tensor(o_).rows_from(begin, end - begin)));
    EXPECT_TRUE(same_bits(Tensor(lse).rows_from(begin, end - begin), Tensor(lse_).rows_from(begin, end - begin)));
  }
  void check_truth() const {
    const Segment all{.nq = tokens_, .nk = tokens_, .block_table = table_.data()};
    const auto truth = attention(as<Bounded>(q_.values()), as<Bounded>(k_.values()), as<Bounded>(v_.values()), kBlock,
                                 {&all, 1}, shape_);
    EXPECT_TRUE(as_expected(o_, truth.o));
    EXPECT_TRUE(as_expected(lse_, truth.lse));
  }

 private:
  static constexpr int64_t kBlock = 16;
  void compute(int threads, int64_t begin, int64_t end, const Held& o, const Held& lse) const {
    const Segment s{.q0 = begin, .nq = end - begin, .nk = end, .offset = begin, .block_table = table_.data()};
    make_cpu_backend(threads)->attention(q_, {k_, v_, kBlock}, {&s, 1}, shape_, o, lse);
  }

  int64_t tokens_;
  AttentionShape shape_;
  std::vector<int32_t> table_;
  Held q_, k_, v_, o_, lse_;
};

TEST(Company, KeysOfALongPromptAreDealtToThreads) {
  for (const DType type : kFloats) {
    SCOPED_TRACE(name_of(type));
    const LongPrompt prompt(0, 700, {.heads = 6, .kv_heads = 2, .head_dim = 20, .scale = 0.25f}, type);
    prompt.check_truth();
    for (const int threads : {1, 2, 16}) {
      for (const int64_t token : {0, 255, 256, 600, 699}) prompt.check(threads, token, token + 1);
      prompt.check(threads, 590, 690);
      prompt.check(threads, 0, 700);
    }
  }
}

// More pieces than their memory holds.
TEST(Company, KeysOfAVeryLongPromptAreDealtToThreads) {
  const LongPrompt prompt(2200, 2300, {.heads = 64, .kv_heads = 4, .head_dim = 128, .scale = 0.1f}, DType::bf16);
  prompt.check(16, 2200, 2300);
}

// The same of a few queries with many heads, whose KV heads are dealt then.
TEST(Company, KeysOfFewQueriesWithManyHeadsAreDealtToThreads) {
  constexpr int64_t kKeys = 17000, kBlock = 16;
  const AttentionShape shape{.heads = 128, .kv_heads = 8, .head_dim = 64, .scale = 0.1f};
  std::vector<int32_t> table((kKeys + kBlock - 1) / kBlock);
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i);
  const Held q(drawn_matrix(1, 8, 128 * 64, DType::bf16, 2), DType::bf16),
      k(drawn_matrix(2, std::ssize(table) * kBlock, 8 * 64, DType::bf16, 2), DType::bf16),
      v(drawn_matrix(3, std::ssize(table) * kBlock, 8 * 64, DType::bf16), DType::bf16);
  const Segment segments[] = {{.q0 = 0, .nq = 4, .nk = kKeys, .offset = kKeys - 4, .block_table = table.data()},
                              {.q0 = 4, .nq = 4, .nk = kKeys - 9, .offset = kKeys - 13, .block_table = table.data()}};
  const Held one_o(8, 128 * 64, DType::bf16), one_lse(8, 128, DType::f32), o(8, 128 * 64, DType::bf16),
      lse(8, 128, DType::f32);
  make_cpu_backend(1)->attention(q, {k, v, kBlock}, segments, shape, one_o, one_lse);
  make_cpu_backend(16)->attention(q, {k, v, kBlock}, segments, shape, o, lse);
  EXPECT_TRUE(same_bits(o, one_o));
  EXPECT_TRUE(same_bits(lse, one_lse));
}

TEST(Company, NormRopeSwigluAndAddOfAnyRows) {
  constexpr int64_t kRows = 90, kWidth = 100, kHalf = 10, kPositions = 64;
  cpu::CpuBackend backend(3);
  for (const DType type : kFloats) {
    const Held x(drawn_matrix(1, kRows, kWidth, type), type), w(drawn_matrix(2, kWidth, 1, type), type),
        gate_up(drawn_matrix(3, kRows, 2 * kWidth, type), type), residual(drawn_matrix(4, kRows, kWidth, type), type);
    const Held cosine(drawn_matrix(5, kPositions, kHalf, DType::f32), DType::f32),
        sine(drawn_matrix(6, kPositions, kHalf, DType::f32), DType::f32);
    Doubles places(kRows, 1);
    for (int64_t r = 0; r < kRows; ++r) places(r, 0) = static_cast<double>(r * 5 % kPositions);
    const Held positions(places, DType::i32);

    struct Results {
      explicit Results(int64_t rows, DType type)
          : normed(Doubles(rows, kWidth), type),
            rstd(Doubles(rows, 1), DType::f32),
            turned(Doubles(rows, kWidth), type),
            activated(Doubles(rows, kWidth), type),
            sum(Doubles(rows, kWidth), type) {}
      Held normed, rstd, turned, activated, sum;
    };
    const auto compute = [&](int64_t begin, int64_t n, const Results& r) {
      const auto some = [&](const Held& held) { return Tensor(held).rows_from(begin, n); };
      backend.rms_norm(some(x), w, 1e-5f, r.normed, r.rstd);
      backend.copy(some(x), r.turned);
      backend.rope(r.turned, some(positions), cosine, sine, false);
      backend.swiglu(some(gate_up), r.activated);
      backend.copy(some(residual), r.sum);
      backend.add(some(x), r.sum);
    };
    const Results whole(kRows, type);
    compute(0, kRows, whole);
    uint64_t count = 0;
    for (int pass = 0; pass < 60; ++pass) {
      const int64_t begin = static_cast<int64_t>(draw(count, kRows)),
                    n = static_cast<int64_t>(1 + draw(count, kRows - static_cast<uint64_t>(begin)));
      const Results part(n, type);
      compute(begin, n, part);
      const auto alike = [&](const Held& got, const Held& expected) {
        return same_bits(got, Tensor(expected).rows_from(begin, n));
      };
      ASSERT_TRUE(alike(part.normed, whole.normed)) << n << " rows from " << begin;
      ASSERT_TRUE(alike(part.rstd, whole.rstd));
      ASSERT_TRUE(alike(part.turned, whole.turned)) << n << " rows from " << begin;
      ASSERT_TRUE(alike(part.activated, whole.activated)) << n << " rows from " << begin;
      ASSERT_TRUE(alike(part.sum, whole.sum)) << n << " rows from " << begin;
    }
  }
}

}  // namespace
}  // namespace drover
