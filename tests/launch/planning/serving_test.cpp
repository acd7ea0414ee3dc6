// What passes take, against numbers worked by hand, and what a model carries over made-up and real machines.
#include "launch/planning/serving.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>

#include "kernels/base/error.h"

namespace drover {
namespace {

using testing::HasSubstr;

// Two blocks of D 8, two heads of 4, F 16, and a vocabulary of 32. With one key/value head a block's linears have
// 8·4·(2·2 + 2·1) + 3·8·16 = 576 weights, the head 256, and a token's keys and values 2·2·1·4 numbers = 32 bytes.
ModelOnGpus small(int64_t kv_heads = 1, int64_t tp = 1) {
  ModelOnGpus m;
  m.config = {.hidden = 8, .layers = 2, .heads = 2, .kv_heads = kv_heads, .head_dim = 4, .ffn = 16, .vocab = 32};
  m.tp = tp;
  m.machine.name = "x1";
  m.machine.gpus_a_node = 2;
  m.machine.memory_bytes = 10'000;
  m.machine.bf16_linear_flops_per_second = 1000;
  m.machine.attention_forward_flops_per_second = 500;
  m.machine.memory_bytes_per_second = 100;
  m.machine.node_link_bytes_per_second = 50;
  m.machine.node_link_seconds = 0.5;
  return m;
}

TEST(PassCost, OneRowReadsAllWeights) {
  // Linears: 2·1152 bytes at 100 a second are 23.04 s (their 2304 FLOPs 2.304 s). Head: 512 bytes, 5.12 s. Ten tokens
  // of 32 bytes: 3.2 s (64 FLOPs each at 500: 1.28 s).
  EXPECT_DOUBLE_EQ(roofline(small())({.decode_rows = 1, .context_tokens = 10}), 23.04 + 5.12 + 3.2);
  // In fp8 a weight is a byte, and 16384 of them share a scale of 4.
  ModelOnGpus fp8 = small();
  fp8.weights = WeightFormat::fp8;
  EXPECT_DOUBLE_EQ(roofline(fp8)({.decode_rows = 1, .context_tokens = 10}), 11.52 * (1 + 4.0 / 16384) + 5.12 + 3.2);
  fp8.weights = WeightFormat::nf4;
  EXPECT_NEAR(roofline(fp8)({.decode_rows = 1, .context_tokens = 10}), 11.52 * 4.127 / 8 + 5.12 + 3.2, 0.001);
}

TEST(PassCost, APromptMultiplies) {
  // Linears: 100 rows of 2304 FLOPs, 230.4 s. Head: one row, its bytes. Attention: 5050 tokens looked at, 64 FLOPs
  // each.
  EXPECT_DOUBLE_EQ(roofline(small())({.prompt_tokens = 100, .prompt_context = 5050}), 230.4 + 5.12 + 5050 * 0.128);
}

TEST(PassCost, TwoGpusShareAndSum) {
  // Two key/value heads: 640 weights a block, 640 on each GPU over both blocks: 12.8 s. Head 2.56 s. A token's 64 bytes
  // are shared: 3.2 s for ten. Four sums of 0.5 s and of 2·(1/2)·8·2 bytes at 50 a second.
  const double sums = 4 * (0.5 + 16.0 / 50);
  EXPECT_DOUBLE_EQ(roofline(small(2, 2))({.decode_rows = 1, .context_tokens = 10}), 12.8 + 2.56 + 3.2 + sums);
}

TEST(PassCost, BytesAndWhatDoesNotFit) {
  // 9000 of 10 000 bytes, less 2304 for linears and 2·512 for embedding and head: 5672, in pieces of 32.
  const ServedBytes bytes = bytes_of(small());
  EXPECT_DOUBLE_EQ(bytes.weights, 2304 + 1024);
  EXPECT_DOUBLE_EQ(bytes.kv_of_a_token, 32);
  EXPECT_EQ(bytes.room_tokens, 177);
  const auto refusal = [](ModelOnGpus m) {
    try {
      bytes_of(m);
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::usage);
      return std::string(error.what());
    }
    return std::string("not refused");
  };
  EXPECT_THAT(refusal(small(1, 2)), HasSubstr("--tp 2 does not divide the 1 key/value heads"));
  ModelOnGpus m = small(4, 4);
  EXPECT_THAT(refusal(m), HasSubstr("--tp 4 is more than the 2 GPUs of a node of x1"));
  m.config.ffn = 18;
  EXPECT_THAT(refusal(m), HasSubstr("--tp 4 does not divide intermediate_size 18"));
  m = small();
  m.machine.memory_bytes = 3000;
  EXPECT_THAT(refusal(m), HasSubstr("take more GPUs with --tp, or --weights fp8 or nf4"));
}

TEST(PassCost, EightBillionOnAnH100ReadFifteenGigabytesForARow) {
  // (6.979 + 0.525) billion weights in 2 bytes at 3.006 TB/s: 4.99 ms.
  const ModelOnGpus m = {.config = *known_model("llama3.1-8b"), .machine = machine(shipped_hardware(), "h100")};
  EXPECT_NEAR(roofline(m)({.decode_rows = 1}), 4.99e-3, 0.01e-3);
}

const PassSeconds kOneSecond = [](const PassShape&) { return 1.0; };

TEST(Serving, PassesOfOneSecond) {
  // A pass for the prompt and the first token, three for the others.
  const Carried one = serve(kOneSecond, {1, 4}, 1);
  EXPECT_DOUBLE_EQ(one.answer_tokens_per_second, 1);
  EXPECT_DOUBLE_EQ(one.prompt_tokens_per_second, 0.25);
  EXPECT_DOUBLE_EQ(one.between_tokens_seconds, 1);
  EXPECT_DOUBLE_EQ(one.first_token_seconds, 1);
  EXPECT_DOUBLE_EQ(serve(kOneSecond, {1, 4}, 4).answer_tokens_per_second, 4);
  // 1024 tokens are two chunks: three passes for two tokens.
  const Carried chunks = serve(kOneSecond, {1024, 2}, 1);
  EXPECT_DOUBLE_EQ(chunks.answer_tokens_per_second, 2.0 / 3);
  EXPECT_DOUBLE_EQ(chunks.first_token_seconds, 2);
  // Two users share the chunks: a pair of answers takes four passes of chunks, in which the decodes lie.
  EXPECT_NEAR(serve(kOneSecond, {1024, 2}, 2).answer_tokens_per_second, 1, 0.01);
  // An answer of one token has no second one.
  const Carried single = serve(kOneSecond, {1, 1}, 3);
  EXPECT_DOUBLE_EQ(single.answer_tokens_per_second, 3);
  EXPECT_EQ(single.between_tokens_seconds, 0);
}

TEST(Serving, RowsLookAtWhatIsBeforeThem) {
  // Behind 10 tokens the first one of the answer looks at 11, the second at 12: passes of 12 and 13 s.
  const PassSeconds looks = [](const PassShape& p) { return 1.0 + static_cast<double>(p.context_tokens); };
  EXPECT_DOUBLE_EQ(serve(looks, {10, 3}, 1).between_tokens_seconds, 12.5);
  // 600 tokens of a prompt look at 600·601/2, in two chunks.
  const PassSeconds prompts = [](const PassShape& p) { return 1.0 + static_cast<double>(p.prompt_context); };
  EXPECT_DOUBLE_EQ(serve(prompts, {600, 1}, 1).first_token_seconds, 2 + 600 * 601 / 2);
}

TEST(Serving, MoreUsersMoreTokensAndLessOftenEach) {
  const ModelOnGpus m = {.config = *known_model("llama3.1-8b"), .machine = machine(shipped_hardware(), "h100")};
  const PassSeconds pass = roofline(m);
  Carried before = serve(pass, {500, 200}, 1);
  for (int64_t users : {2, 8, 32, 128}) {
    const Carried now = serve(pass, {500, 200}, users);
    EXPECT_GT(now.answer_tokens_per_second, before.answer_tokens_per_second) << users;
    EXPECT_GT(now.between_tokens_seconds, before.between_tokens_seconds) << users;
    EXPECT_NEAR(now.prompt_tokens_per_second / now.answer_tokens_per_second, 2.5, 0.1) << users;
    before = now;
  }
  EXPECT_LT(serve(pass, {4000, 200}, 32).answer_tokens_per_second,
            serve(pass, {500, 200}, 32).answer_tokens_per_second);
  ModelOnGpus faster = m;
  faster.machine = machine(shipped_hardware(), "h200");
  EXPECT_GT(serve(roofline(faster), {500, 200}, 32).answer_tokens_per_second,
            serve(pass, {500, 200}, 32).answer_tokens_per_second);
  const Carried again = serve(pass, {500, 200}, 128);
  EXPECT_EQ(again.answer_tokens_per_second, before.answer_tokens_per_second);
  EXPECT_EQ(again.first_token_seconds, before.first_token_seconds);
}

TEST(Serving, TheMostUsers) {
  // Passes of as many milliseconds as rows: with a limit of 20 ms some twenty users, and one more is too many.
  const PassSeconds rows = [](const PassShape& p) {
    return 1e-3 * static_cast<double>(p.decode_rows + p.prompt_tokens);
  };
  const RequestShape request = {1, 100};
  const MostUsers most = most_users(rows, request, {.between_tokens_seconds = 0.02, .room_tokens = 1'000'000});
  EXPECT_EQ(most.limit, UsersLimit::time);
  EXPECT_NEAR(static_cast<double>(most.carried.users), 20, 1);
  EXPECT_LE(most.carried.between_tokens_seconds, 0.02);
  EXPECT_GT(serve(rows, request, most.carried.users + 1).between_tokens_seconds, 0.02);
  // 808 tokens have room for 8 requests of 101.
  const MostUsers eight = most_users(rows, request, {.between_tokens_seconds = 0.02, .room_tokens = 900});
  EXPECT_EQ(eight.carried.users, 8);
  EXPECT_EQ(eight.limit, UsersLimit::room);
  const MostUsers many = most_users(kOneSecond, {1, 1}, {.between_tokens_seconds = 2, .room_tokens = 1'000'000});
  EXPECT_EQ(many.carried.users, kMostUsers);
  EXPECT_EQ(many.limit, UsersLimit::count);
  try {
    most_users(kOneSecond, request, {.between_tokens_seconds = 0.5, .room_tokens = 900});
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("one answer alone has 1e+03 ms between its tokens, more than the 500 ms"));
  }
  EXPECT_THROW(most_users(rows, request, {.between_tokens_seconds = 1, .room_tokens = 100}), Error);
}

// Output tokens a second of 405B in fp8 on eight GPUs with as many requests as have room. H200: NVIDIA, TensorRT-LLM,
// Meta's fp8 recipe (August 2024); MI300X: AMD, vLLM 0.8.3 (April 2025). Both multiply in fp8, the plan in bf16.
TEST(Serving, NearWhatOthersHaveMeasured) {
  const std::tuple<const char*, RequestShape, double> measured[] = {
      {"h200", {2048, 128}, 399.9},    {"h200", {32'768, 2048}, 230.8}, {"h200", {120'000, 2048}, 49.6},
      {"mi300x", {128, 2048}, 4331.6}, {"mi300x", {500, 2000}, 3184.0}, {"mi300x", {2048, 2048}, 2154.3}};
  for (const auto& [gpu, request, tokens_per_second] : measured) {
    const ModelOnGpus m = {.config = *known_model("llama3.1-405b"),
                           .weights = WeightFormat::fp8,
                           .tp = 8,
                           .machine = machine(shipped_hardware(), gpu)};
    const ServingLimits room_only = {.between_tokens_seconds = 100, .room_tokens = bytes_of(m).room_tokens};
    const double planned = most_users(roofline(m), request, room_only).carried.answer_tokens_per_second;
    EXPECT_GT(planned / tokens_per_second, 0.7) << gpu << " " << request.prompt_tokens;
    EXPECT_LT(planned / tokens_per_second, 1.1) << gpu << " " << request.prompt_tokens;
  }
}

}  // namespace
}  // namespace drover
