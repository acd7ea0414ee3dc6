// On a GPU: cuDNN takes what it should, and gives what this project's own kernels give.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cuda/attention_plans.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/reference/compare.h"

namespace drover::cuda {
namespace {

using namespace reference;

// Grouped heads in buffers with the margins that a model's have.
struct Buffers {
  AttentionShape shape{8, 2, 128, 0.0884f};
  Held qkv, o, lse, d_o, d_qkv;
  explicit Buffers(int64_t rows)
      : qkv(drawn_matrix(1, rows, 12 * 128, DType::bf16, 2), DType::bf16),
        o(drawn_matrix(2, rows, 8 * 128, DType::bf16), DType::bf16, 64),
        lse(drawn_matrix(3, rows, 8, DType::f32), DType::f32),
        d_o(drawn_matrix(4, rows, 8 * 128, DType::bf16), DType::bf16),
        d_qkv(drawn_matrix(5, rows, 12 * 128, DType::bf16), DType::bf16, 64) {}
  static Tensor heads(Tensor t, int64_t first, int64_t count) { return t.columns(first * 128, count * 128); }
  AttentionCall call(std::span<const Segment> segments) const {
    return {.q = heads(qkv, 0, 8),
            .kv = {.k = heads(qkv, 8, 2), .v = heads(qkv, 10, 2)},
            .segments = segments,
            .shape = shape,
            .o = o,
            .lse = lse};
  }
  AttentionGradients gradients() const {
    return {.d_o = d_o, .dq = heads(d_qkv, 0, 8), .dk = heads(d_qkv, 8, 2), .dv = heads(d_qkv, 10, 2)};
  }
};

double apart(const Held& a, const Held& b) {
  const Doubles x = a.values(), y = b.values();
  double difference = 0, size = 0;
  for (size_t i = 0; i < x.values.size(); ++i)
    difference += (x.values[i] - y.values[i]) * (x.values[i] - y.values[i]), size += y.values[i] * y.values[i];
  return std::sqrt(difference / size);
}

struct BothWays {
  CudaBackend backend{CudaSettings{}};
  Uploader uploader{backend.stream()};
  Traffic traffic;
  CudaAttention chosen{backend.stream(), uploader, traffic, {}},
      own{backend.stream(), uploader, traffic, {.own_kernels_only = true}};
};

TEST(CudnnAttention, TakesPackedDocumentsAndAgreesWithOwnKernels) {
  BothWays ways;
  for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{1, 70, 300, 17}, {512}, {64, 1, 1, 129}}) {
    std::vector<Segment> segments;
    int64_t row = 0;
    for (const int64_t n : lengths) segments.push_back({.q0 = row, .nq = n, .k0 = row, .nk = n}), row += n;
    const Buffers a(row), b(row);
    ways.chosen.forward(a.call(segments));
    ways.own.forward(b.call(segments));
    finish();
    EXPECT_LT(apart(a.o, b.o), 4e-3);
    EXPECT_LT(apart(a.lse, b.lse), 1e-5);
    ways.chosen.backward(a.call(segments), a.gradients());
    ways.own.backward(b.call(segments), b.gradients());
    finish();
    EXPECT_LT(apart(a.d_qkv, b.d_qkv), 8e-3);
  }
  EXPECT_EQ(ways.chosen.path(), "cuDNN 6 times");
}

// A length that comes again and again gets a graph without tables; the rows before the first document are nobody's.
TEST(CudnnAttention, EqualLengthsThatComeAgainAgreeWithOwnKernels) {
  BothWays ways;
  for (const int64_t documents : {1, 3}) {
    constexpr int64_t kLength = 200, kFirst = 5;
    std::vector<Segment> segments;
    for (int64_t i = 0; i < documents; ++i)
      segments.push_back({.q0 = kFirst + i * kLength, .nq = kLength, .k0 = kFirst + i * kLength, .nk = kLength});
    const Buffers a(kFirst + documents * kLength), b(kFirst + documents * kLength);
    ways.own.forward(b.call(segments));
    ways.own.backward(b.call(segments), b.gradients());
    for (int i = 0; i < 202; ++i) ways.chosen.forward(a.call(segments));  // the last two by the other graph
    ways.chosen.backward(a.call(segments), a.gradients());
    finish();
    EXPECT_LT(apart(a.o, b.o), 4e-3);
    EXPECT_LT(apart(a.lse, b.lse), 1e-5);
    EXPECT_LT(apart(a.d_qkv, b.d_qkv), 8e-3);
  }
}

TEST(CudnnAttention, TakesDecodingAndAgreesWithOwnKernels) {
  BothWays ways;
  const Buffers a(3 * 1600), b(3 * 1600);
  for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{1500, 7, 1024}, {1600}}) {
    std::vector<Segment> segments;
    for (const int64_t n : lengths) {
      const int64_t i = static_cast<int64_t>(segments.size());
      segments.push_back({.q0 = 1 + i, .nq = 1, .k0 = i * 1600, .nk = n, .offset = n - 1});
    }
    ways.chosen.forward(a.call(segments));
    ways.own.forward(b.call(segments));
    finish();
    EXPECT_LT(apart(a.o, b.o), 4e-3);
    EXPECT_LT(apart(a.lse, b.lse), 1e-5);
  }
  EXPECT_EQ(ways.chosen.path(), "cuDNN 2 times");
}

// Chunks of prompts over a cache whose blocks lie backwards, between a row that decodes and another.
TEST(CudnnAttention, TakesChunksOverBlocksAndAgreesWithOwnKernels) {
  BothWays ways;
  constexpr int64_t kBlock = 16, kBlocks = 100;
  const Buffers a(kBlock * kBlocks), b(kBlock * kBlocks);
  std::vector<int32_t> table;
  for (int32_t i = kBlocks; i > 0; --i) table.push_back(i - 1);
  const std::vector<Segment> segments = {{.q0 = 0, .nq = 1, .nk = 300, .offset = 299, .block_table = table.data()},
                                         {.q0 = 1, .nq = 130, .nk = 700, .offset = 570, .block_table = table.data()},
                                         {.q0 = 131, .nq = 7, .nk = 20, .offset = 13, .block_table = table.data() + 50},
                                         {.q0 = 138, .nq = 1, .nk = 9, .offset = 8, .block_table = table.data() + 60}};
  AttentionCall chosen = a.call(segments), own = b.call(segments);
  chosen.kv.block_size = own.kv.block_size = kBlock;
  ways.chosen.forward(chosen);
  ways.own.forward(own);
  finish();
  EXPECT_LT(apart(a.o, b.o), 4e-3);
  EXPECT_LT(apart(a.lse, b.lse), 1e-5);
  EXPECT_EQ(ways.chosen.path(), "cuDNN 1 time, own kernels 1 time");
}

}  // namespace
}  // namespace drover::cuda
