// What every backend does around its kernels: operands that do not fit are refused, and an observer hears of each op.
#include "kernels/op_call.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/timed/op_timer.h"
#include "tests/reference/backend_under_test.h"

namespace drover {
namespace {

struct Ops : testing::Test {
  Tensor tensor(int64_t rows, int64_t cols, DType dtype = DType::f32) {
    const Tensor t = arena.tensor(rows, cols, dtype);
    backend->zero(t);
    return t;
  }
  std::unique_ptr<Backend> backend = reference::backend_under_test();
  Arena arena{"ops", backend->memory(), int64_t{1} << 20};
};

struct Diary : OpObserver {
  std::vector<std::string> lines;
  std::vector<OpCall> calls;
  void begin(const OpCall& call) override { lines.push_back("begin " + std::string(call.op)); }
  void end(const OpCall& call) override {
    lines.push_back("end " + std::string(call.op));
    calls.push_back(call);
  }
};

TEST_F(Ops, OfOperandsThatDoNotFitAreABug) {
  const Tensor x = tensor(5, 16), narrow = tensor(5, 16, DType::bf16), w = tensor(8, 16), y = tensor(5, 8);
  const Tensor index = tensor(5, 1, DType::i32), weights = tensor(5, 1), total = tensor(1, 1, DType::f64);
  const Tensor vector = tensor(16, 1), one = tensor(1, 1), tall = tensor(6, 16);
  const KvView kv{x, x};
  const DenseWeight frozen(w);
  const Segment all{.nq = 5, .nk = 5};
  const std::pair<const char*, std::function<void()>> misfits[] = {
      {"copy", [&] { backend->copy(x, y); }},
      {"copy to another kind", [&] { backend->copy(index, weights); }},
      {"copy_all",
       [&] {
         const CopyPair pair{x, tall};
         backend->copy_all({&pair, 1});
       }},
      {"read_later", [&] { backend->read_later(weights); }},
      {"gather_rows", [&] { backend->gather_rows(x, index, tall); }},
      {"scatter_rows", [&] { backend->scatter_rows(tall, index, x); }},
      {"gemm", [&] { backend->gemm(Trans::no, Trans::no, 1, x, w, 0, y); }},
      {"linear", [&] { backend->linear(y, frozen, {}, false, y); }},
      {"linear's term",
       [&] {
         const LowRank t{.a = weights, .b = vector};
         backend->linear(x, frozen, {{&t, 1}, weights, {}}, false, y);
       }},
      {"linear_of_parts",
       [&] {
         const LinearPart some{3, {}};  // of five rows
         backend->linear_of_parts(x, frozen, {&some, 1}, false, y);
       }},
      {"linear_dx", [&] { backend->linear_dx(x, frozen, {}, {}, x); }},
      {"linear_dx's term", [&] { backend->linear_dx(y, frozen, weights, weights, x); }},
      {"low_rank_backward", [&] { backend->low_rank_backward(y, {}, tall); }},
      {"add", [&] { backend->add(x, tall); }},
      {"scale_rows", [&] { backend->scale_rows(vector, x); }},
      {"dropout", [&] { backend->dropout(x, {}, narrow); }},
      {"dropout_add", [&] { backend->dropout_add(x, {}, tall); }},
      {"rms_norm", [&] { backend->rms_norm(x, weights, 1e-5f, x, weights); }},
      {"rms_norm_again", [&] { backend->rms_norm_again(x, vector, vector, x); }},
      {"rms_norm_backward", [&] { backend->rms_norm_backward(x, tall, weights, vector, x); }},
      {"rope", [&] { backend->rope(x, index, tensor(5, 3), tensor(5, 3), false); }},
      {"swiglu", [&] { backend->swiglu(x, x); }},
      {"swiglu_backward", [&] { backend->swiglu_backward(y, x, narrow, {}); }},
      {"embedding", [&] { backend->embedding(index, frozen, 0, 8, tall); }},
      {"attention",
       [&] {
         backend->attention(x, kv, {&all, 1}, {3, 1, 16, 1}, x, weights);
       }},
      {"attention_backward",
       [&] {
         backend->attention_backward(x, kv, {&all, 1}, {1, 1, 16, 1}, x, weights, x, x, y, x);
       }},
      {"start_statistics", [&] { backend->start_statistics(x); }},
      {"fold_statistics", [&] { backend->fold_statistics(x, index, 0, 17, tensor(5, 3)); }},
      {"merge_statistics", [&] { backend->merge_statistics(tensor(7, 3), weights, weights); }},
      {"cross_entropy_backward", [&] { backend->cross_entropy_backward(x, index, 0, 16, vector, x); }},
      {"sample", [&] { backend->sample(x, x, index); }},
      {"penalize", [&] { backend->penalize(x, tensor(1, 2, DType::i32), tensor(2, 3)); }},
      {"allow", [&] { backend->allow(x, index, tensor(5, 2, DType::i32)); }},
      {"log_probabilities", [&] { backend->log_probabilities(x, index, vector, index, weights); }},
      {"sum_squares", [&] { backend->sum_squares(x, one); }},
      {"dot", [&] { backend->dot(weights, vector, total); }},
      {"clip_factor", [&] { backend->clip_factor(one, 1, one); }},
      {"adamw", [&] { backend->adamw({}, one, vector, vector, vector, weights); }},
  };
  for (const auto& [op, call] : misfits) {
    try {
      call();
      ADD_FAILURE() << op << " took what does not fit";
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::internal) << op;
    }
  }
}

TEST_F(Ops, AreToldToAnObserver) {
  const Tensor x = tensor(5, 16), w = tensor(8, 16, DType::bf16), y = tensor(5, 8);
  Diary diary;
  backend->observe(&diary);
  backend->linear(x, DenseWeight(w), {}, false, y);
  ASSERT_FALSE(diary.calls.empty());
  EXPECT_EQ(diary.lines.front(), "begin linear");
  EXPECT_EQ(diary.lines.back(), "end linear");
  const OpCall& call = diary.calls.back();
  EXPECT_TRUE(call.is_product());
  EXPECT_FALSE(call.is_part);
  EXPECT_EQ(call.a.rows, 5);
  EXPECT_EQ(call.a.cols, 16);
  EXPECT_EQ(call.b.rows, 8);
  EXPECT_EQ(call.dtype, DType::f32);
  EXPECT_EQ(call.flops, 2 * 5 * 16 * 8);
  EXPECT_EQ(call.bytes, 4 * 5 * 16 + 2 * 8 * 16 + 4 * 5 * 8);
  const size_t lines = diary.lines.size();
  backend->observe(nullptr);
  backend->zero(x);
  EXPECT_EQ(diary.lines.size(), lines);
}

// copy_all of f64 has no kernel of its own anywhere: it is one call, made of two.
TEST_F(Ops, ThatOthersCarryOutAreToldWithTheirParts) {
  const Tensor sum = tensor(1, 1, DType::f64), other = tensor(1, 1, DType::f64);
  const CopyPair pairs[] = {{sum, other}, {tensor(2, 1, DType::f64), tensor(2, 1, DType::f64)}};
  Diary diary;
  backend->observe(&diary);
  backend->copy_all(pairs);
  backend->copy(sum, other);
  backend->observe(nullptr);
  EXPECT_EQ(diary.lines, (std::vector<std::string>{"begin copy_all", "begin copy", "end copy", "begin copy", "end copy",
                                                   "end copy_all", "begin copy", "end copy"}));
  EXPECT_TRUE(diary.calls[0].is_part);
  EXPECT_FALSE(diary.calls[2].is_part);
  EXPECT_EQ(diary.calls[2].parts, 2);
  EXPECT_EQ(diary.calls[2].bytes, diary.calls[0].bytes + diary.calls[1].bytes);
  EXPECT_FALSE(diary.calls[3].is_part);
}

TEST_F(Ops, ThatThrowLeaveTheNextOneWhole) {
  const Tensor x = tensor(5, 16), sum = tensor(1, 1, DType::f64);
  struct Failing : Diary {
    void begin(const OpCall& call) override {
      Diary::begin(call);
      if (call.is_part) fail(Fault::internal, "no");
    }
  } diary;
  backend->observe(&diary);
  const CopyPair pair{sum, sum};
  EXPECT_THROW(backend->copy_all({&pair, 1}), Error);
  backend->zero(x);
  backend->observe(nullptr);
  ASSERT_EQ(diary.calls.size(), 1u);
  EXPECT_FALSE(diary.calls[0].is_part);
}

TEST_F(Ops, AreTimedByName) {
  const Tensor x = tensor(5, 16), w = tensor(8, 16), y = tensor(5, 8);
  OpTimer timer(*backend);
  backend->zero(x);
  timer.start_over();
  backend->linear(x, DenseWeight(w), {}, false, y);
  backend->linear(x, DenseWeight(w), {}, false, y);
  const CopyPair pairs[] = {{tensor(1, 1, DType::f64), tensor(1, 1, DType::f64)}};
  backend->copy_all(pairs);
  const auto& times = timer.times();
  EXPECT_EQ(times.at("linear").calls, 2);
  EXPECT_EQ(times.at("linear").flops, 2 * 2 * 5 * 16 * 8);
  EXPECT_GT(times.at("linear").seconds, 0);
  EXPECT_TRUE(times.at("linear").product);
  EXPECT_EQ(times.at("copy_all").calls, 1);
  EXPECT_EQ(times.count("copy"), 0u);    // a part of copy_all
  EXPECT_EQ(times.at("zero").calls, 2);  // of the two tensors that were made
}

}  // namespace
}  // namespace drover
