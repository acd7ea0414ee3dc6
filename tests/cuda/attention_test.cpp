// Attention on CUDA: what is copied to the device and how often, which path is taken, and that alignment does not
// change a decoded row.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "kernels/cuda/attention_plans.h"
#include "kernels/cuda/attention_segments.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/cuda/emulation/no_cudnn.h"
#include "tests/reference/compare.h"

namespace drover::cuda {
namespace {

using namespace reference;
using testing::ElementsAre;
using testing::HasSubstr;

Segment causal(int64_t begin, int64_t length) {
  return {.q0 = begin, .nq = length, .k0 = begin, .nk = length, .offset = 0};
}

struct Problem {
  AttentionShape shape;
  Held q, k, v, o, lse, d_o, dq, dk, dv;
  Problem(int64_t rows, int64_t head_dim, DType type = DType::f32, int64_t margin = 0)
      : shape{2, 1, head_dim, 1 / std::sqrt(static_cast<float>(head_dim))},
        q(drawn_matrix(1, rows, 2 * head_dim, type), type, margin),
        k(drawn_matrix(2, rows, head_dim, type), type, margin),
        v(drawn_matrix(3, rows, head_dim, type), type, margin),
        o(drawn_matrix(4, rows, 2 * head_dim, type), type, margin),
        lse(drawn_matrix(5, rows, 2, DType::f32), DType::f32, margin),
        d_o(drawn_matrix(6, rows, 2 * head_dim, type), type, margin),
        dq(drawn_matrix(7, rows, 2 * head_dim, type), type, margin),
        dk(drawn_matrix(8, rows, head_dim, type), type, margin),
        dv(drawn_matrix(9, rows, head_dim, type), type, margin) {}
  AttentionCall call(std::span<const Segment> segments) const { return {q, {k, v}, segments, shape, o, lse}; }
  AttentionGradients gradients() const { return {d_o, dq, dk, dv}; }
};

// CudaAttention with what it counts and says.
struct Fixture {
  std::vector<std::string> lines;
  Traffic traffic;
  Uploader uploader{nullptr};
  CudaAttention attention;
  explicit Fixture(bool own_kernels_only = false)
      : attention(
            nullptr, uploader, traffic,
            {.own_kernels_only = own_kernels_only, .log = [this](const std::string& line) { lines.push_back(line); }}) {
  }
};

TEST(CudaAttention, AllLayersOfAMicroBatchShareOneUpload) {
  Fixture f;
  const Problem p(20, 4);
  for (int layer = 0; layer < 3; ++layer) {
    const std::vector<Segment> segments = {causal(0, 12), causal(12, 8)};  // elsewhere in memory each time
    f.attention.forward(p.call(segments));
    f.attention.backward(p.call(segments), p.gradients());
  }
  EXPECT_EQ(f.traffic.uploads, 1);
  EXPECT_EQ(f.traffic.allocations, 1);
  EXPECT_EQ(f.traffic.downloads, 0);
  EXPECT_GT(f.traffic.uploaded_bytes, 0);
  EXPECT_EQ(f.attention.workspace_bytes(), f.traffic.allocated_bytes);
}

TEST(CudaAttention, MicroBatchesInFlightAreKeptAndTheOldestIsReplaced) {
  Fixture f;
  constexpr int64_t kSlots = AttentionSegments::kSlots;
  const Problem p(kSlots + 4, 4);
  const auto forward = [&](int64_t length) {
    const Segment s[] = {causal(0, length)};
    f.attention.forward(p.call(s));
  };
  for (int round = 0; round < 2; ++round) {
    for (int64_t length = 2; length < 2 + kSlots; ++length) forward(length);
  }
  EXPECT_EQ(f.traffic.uploads, kSlots);
  forward(2);
  forward(2 + kSlots);  // takes the place of 3
  forward(2);
  EXPECT_EQ(f.traffic.uploads, kSlots + 1);
  forward(3);
  EXPECT_EQ(f.traffic.uploads, kSlots + 2);
  EXPECT_EQ(f.traffic.allocations, kSlots);
}

TEST(CudaAttention, ADifferenceAnywhereIsUploaded) {
  Fixture f;
  const Problem p(20, 4);
  std::vector<int32_t> table = {4, 1, 0};
  Segment s{.q0 = 3, .nq = 2, .k0 = 0, .nk = 9, .offset = 7, .block_table = table.data()};
  AttentionCall call = p.call({&s, 1});
  call.kv.block_size = 4;
  const auto uploads_after = [&](auto&& change) {
    change();
    f.attention.forward(call);
    f.attention.forward(call);
    return f.traffic.uploads;
  };
  EXPECT_EQ(uploads_after([] {}), 1);
  const Doubles before = p.o.values();
  EXPECT_EQ(uploads_after([&] { table[2] = 2; }), 2);  // the same address, another content
  EXPECT_FALSE(exactly(p.o, before));
  EXPECT_EQ(uploads_after([&] { table[2] = 0; }), 2);
  EXPECT_TRUE(exactly(p.o, before));
  EXPECT_EQ(uploads_after([&] { s.q0 = 4; }), 3);
  EXPECT_EQ(uploads_after([&] { s.nq = 3; }), 4);
  EXPECT_EQ(uploads_after([&] { s.nk = 10; }), 5);
  EXPECT_EQ(uploads_after([&] { s.offset = 6; }), 6);
  EXPECT_EQ(uploads_after([&] { call.kv.block_size = 3, s.nk = 9; }), 7);
  EXPECT_EQ(uploads_after([&] { s.block_table = nullptr; }), 8);
  EXPECT_EQ(uploads_after([&] { s.k0 = 5; }), 9);
}

TEST(CudaAttention, TheDeviceBufferGrowsOnlyForMore) {
  Fixture f(true);
  const Problem p(4, 4);
  std::vector<int32_t> table(50000);
  const auto forward = [&](int64_t keys) {
    const Segment s{.q0 = 0, .nq = 1, .k0 = 0, .nk = keys, .offset = 0, .block_table = table.data()};
    AttentionCall call = p.call({&s, 1});
    call.kv.block_size = 1;
    f.attention.forward(call);
  };
  constexpr int64_t kSlots = AttentionSegments::kSlots;
  for (int64_t keys = 1; keys <= kSlots; ++keys) forward(keys);
  const int64_t small = f.attention.workspace_bytes();
  forward(kSlots + 1);
  EXPECT_EQ(f.attention.workspace_bytes(), small);
  EXPECT_EQ(f.traffic.allocations, kSlots);
  forward(50000);
  EXPECT_GT(f.attention.workspace_bytes(), small);
  EXPECT_EQ(f.traffic.allocations, kSlots + 1);
}

TEST(CudaAttention, NothingIsSentWhereThereIsNothingToDo) {
  Fixture f;
  const Problem p(4, 4);
  const Segment empty[] = {causal(1, 0)};
  f.attention.forward(p.call({}));
  f.attention.forward(p.call(empty));
  f.attention.backward(p.call(empty), p.gradients());
  EXPECT_EQ(f.traffic.uploads, 0);
  EXPECT_EQ(f.traffic.allocations, 0);
}

TEST(CudaAttention, ThePathIsTold) {
  Fixture f;
  const Problem p(4, 4);
  const Segment s[] = {causal(0, 4)};
  EXPECT_EQ(f.attention.path(), "not used");
  f.attention.forward(p.call(s));
  EXPECT_EQ(f.attention.path(), "own kernels 1 time");
  f.attention.backward(p.call(s), p.gradients());
  EXPECT_EQ(f.attention.path(), "own kernels 2 times");
  EXPECT_TRUE(f.lines.empty());
}

TEST(CudaAttention, ARefusalIsSaidOnceAndOwnKernelsTakeTheCall) {
  const Problem p(12, 4), own(12, 4);
  const Segment s[] = {causal(0, 12)};
  Fixture refused, only_own(true);
  emulation::cudnn_claims = true;
  for (int layer = 0; layer < 2; ++layer) {
    refused.attention.forward(p.call(s));
    refused.attention.backward(p.call(s), p.gradients());
    only_own.attention.forward(own.call(s));
    only_own.attention.backward(own.call(s), own.gradients());
  }
  emulation::cudnn_claims = false;
  EXPECT_THAT(refused.lines, ElementsAre(HasSubstr("there is no cuDNN here")));
  EXPECT_EQ(refused.attention.path(), "own kernels 4 times");
  EXPECT_TRUE(only_own.lines.empty());
  EXPECT_TRUE(exactly(p.o, own.o.values()));
  EXPECT_TRUE(exactly(p.dk, own.dk.values()));
}

TEST(CudaAttention, WhatItCannotDoIsRefused) {
  Fixture f;
  const Problem p(4, 4), wide(4, 257);
  const int32_t table[] = {0};
  const Segment s[] = {{.q0 = 0, .nq = 4, .k0 = 0, .nk = 4, .offset = 0, .block_table = table}};
  EXPECT_THROW(f.attention.forward(p.call(s)), Error);  // no block size
  EXPECT_THROW(f.attention.backward(p.call(s), p.gradients()), Error);
  EXPECT_THROW(f.attention.forward(wide.call({})), Error);
}

// Rows that lie on 16-byte boundaries are loaded in packs, others one by one; a token's bits are the same.
TEST(CudaAttention, AlignmentDoesNotChangeARow) {
  Fixture f;
  for (const DType type : {DType::f32, DType::bf16}) {
    for (const int64_t head_dim : {24, 136}) {
      const Problem packed(70, head_dim, type, 8), loose(70, head_dim, type, 3);
      const Segment decode[] = {{.q0 = 69, .nq = 1, .k0 = 0, .nk = 70, .offset = 69}}, prefill[] = {causal(0, 68)};
      for (const auto& segments : {decode, prefill}) {
        f.attention.forward(packed.call({segments, 1}));
        f.attention.forward(loose.call({segments, 1}));
      }
      f.attention.backward(packed.call(prefill), packed.gradients());
      f.attention.backward(loose.call(prefill), loose.gradients());
      EXPECT_TRUE(exactly(loose.o, packed.o.values()));
      EXPECT_TRUE(exactly(loose.lse, packed.lse.values()));
      EXPECT_TRUE(exactly(loose.dq, packed.dq.values()));
      EXPECT_TRUE(exactly(loose.dk, packed.dk.values()));
      EXPECT_TRUE(exactly(loose.dv, packed.dv.values()));
    }
  }
}

TEST(CudaAttention, TheBackendCountsItsUploads) {
  CudaBackend backend({});
  const Problem p(8, 4);
  const Segment s[] = {causal(0, 8)};
  const int64_t before = backend.traffic().uploads, held = backend.workspace_bytes();
  backend.attention(p.q, {p.k, p.v}, s, p.shape, p.o, p.lse);
  backend.attention(p.q, {p.k, p.v}, s, p.shape, p.o, p.lse);
  EXPECT_EQ(backend.traffic().uploads, before + 1);
  EXPECT_GT(backend.workspace_bytes(), held);
}

}  // namespace
}  // namespace drover::cuda
