// Passes of generation, counted: prompts take as many passes as their length says, and single tokens get dearer with
// what lies in the cache.
#include "trainer/planning/pass_time.h"

#include <gtest/gtest.h>

#include "trainer/planning/made_model.h"

namespace drover {
namespace {

constexpr MadeModel kTiny{.hidden = 64, .ffn = 96, .head_dim = 16, .kv_heads = 2, .layers = 4, .vocab = 128};

ReplicaSettings settings() {
  ReplicaSettings s;
  s.model = config_of(kTiny, 4096);
  s.partition = {{0, kTiny.layers}};
  s.dtype = DType::bf16;
  s.max_positions = 4096;
  s.train = false;
  return s;
}

// Every op takes a millisecond.
RoughRates each_op() {
  return {.product = 1e30, .attention = 1e30, .attention_backward = 1e30, .memory = 1e30, .call_seconds = 1e-3};
}

TEST(PassTimes, APromptTakesItsPasses) {
  const Rates rates(each_op());
  PassTimes passes(settings(), {}, {}, rates, 1, 2048);
  const double one = passes.first_token_seconds(512, 512);
  EXPECT_GT(one, 4 * 5 * 1e-3) << "four layers of at least five ops";
  EXPECT_NEAR(passes.first_token_seconds(1, 512), one, 1e-9);
  EXPECT_NEAR(passes.first_token_seconds(1024, 512), 2 * one, 1e-9);
  EXPECT_NEAR(passes.first_token_seconds(1025, 512), 3 * one, 1e-9);
  EXPECT_NEAR(passes.token_seconds(64, 100), passes.seconds({.answers = 1, .answer_context = 64}), 1e-9);
}

// At a byte a second the keys and values that a token reads show: 2·K·E numbers of two bytes for each, in each layer.
TEST(PassTimes, ATokenReadsItsKeysAndValues) {
  RoughRates slow = each_op();
  slow.memory = 1, slow.call_seconds = 0;
  const Rates rates(slow);
  PassTimes passes(settings(), {}, {}, rates, 2, 2048);
  const auto token = [&](int64_t context) { return passes.seconds({.answers = 1, .answer_context = context}); };
  EXPECT_DOUBLE_EQ(token(1000) - token(500), 500.0 * 4 * 2 * 2 * 16 * 2);
  // The second half of a prompt reads the first half's.
  EXPECT_NEAR(passes.first_token_seconds(1024, 512) - 2 * passes.first_token_seconds(512, 512),
              512.0 * 4 * 2 * 2 * 16 * 2, 1e-3);
  const double two = passes.seconds({.answers = 2, .answer_context = 500});
  EXPECT_LT(two, 2 * token(500)) << "weights are read once for both";
}

// Ten prompts; 4 of 10 at once: three further tokens take six passes for four and three for the two that remain. At a
// FLOP a second each answer in a pass shows.
TEST(PassTimes, RequestsTakeTheirPromptsAndSharedPasses) {
  RoughRates slow = each_op();
  slow.product = 1;
  const Rates rates(slow);
  PassTimes passes(settings(), {}, {}, rates, 4, 2048);
  const double prompt = passes.first_token_seconds(1000, 512);
  const auto pass = [&](int64_t answers) { return passes.seconds({.answers = answers, .answer_context = 1002}); };
  EXPECT_GT(pass(4), 1.9 * pass(2));
  EXPECT_DOUBLE_EQ(passes.requests_seconds(10, 1000, 4, 4), 10 * prompt + 6 * pass(4) + 3 * pass(2));
  EXPECT_DOUBLE_EQ(passes.requests_seconds(8, 1000, 4, 4), 8 * prompt + 6 * pass(4));
  EXPECT_DOUBLE_EQ(passes.requests_seconds(3, 1000, 4, 4), 3 * prompt + 3 * pass(3));
  EXPECT_DOUBLE_EQ(passes.requests_seconds(10, 1000, 1, 4), 10 * prompt);
}

// Two passes, and at a FLOP a second the head's products show, 2·64·128: of every token, where a choice takes the last.
TEST(PassTimes, ScoringTakesTheHeadOfEveryToken) {
  RoughRates slow = each_op();
  slow.product = 1, slow.call_seconds = 0;
  const Rates rates(slow);
  PassTimes passes(settings(), {}, {}, rates, 0, 2048);
  EXPECT_NEAR(passes.scoring_seconds(300, 256) - passes.first_token_seconds(300, 256), (300 - 2) * 2.0 * 64 * 128,
              1e-3);
}

// At a FLOP a second the products of an adapter of rank 4 show: 2·4·(in + out) for q, k, v, o, gate, up and down of
// each layer.
TEST(PassTimes, AnAdapterTakesItsProducts) {
  RoughRates slow = each_op();
  slow.product = 1, slow.call_seconds = 0;
  const Rates rates(slow);
  ReplicaSettings adapted = settings();
  adapted.adapter = layout_of(adapted.model, 4);
  PassTimes plain(settings(), {}, {}, rates, 1, 64), with(adapted, {}, {}, rates, 1, 64);
  const PlannedPass token{.answers = 1, .answer_context = 10};
  EXPECT_DOUBLE_EQ(with.seconds(token) - plain.seconds(token),
                   4 * 2.0 * 4 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 96)));
}

}  // namespace
}  // namespace drover
