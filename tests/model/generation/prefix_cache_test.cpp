// Beginnings that requests share: found by weights and tokens, given up when room is needed, and never seen in an
// answer.
#include <gmock/gmock.h>

#include <cmath>
#include <random>
#include <set>

#include "tests/model/generation/made_up_room.h"

namespace drover {
namespace {

constexpr int64_t kBlock = KvPool::kBlockTokens;

struct Tree {
  explicit Tree(int64_t blocks) : room({.blocks = blocks}), cache(room.pool()) {}

  // As a batcher does: adopts, takes blocks, computes, publishes.
  PrefixCache::Sequence run(const std::vector<int32_t>& ids, const std::string& weights = "base") {
    PrefixCache::Sequence s;
    cache.adopt(s, weights, ids);
    adopted = s.tokens;
    EXPECT_TRUE(cache.reserve(s, static_cast<int64_t>(ids.size())));
    s.tokens = static_cast<int64_t>(ids.size());
    cache.publish(s, weights, ids);
    return s;
  }

  Room room;
  PrefixCache cache;
  int64_t adopted = 0;  // tokens, of the last run
};

TEST(PrefixCache, FindsWholeBlocksButForTheLastToken) {
  Tree tree(20);
  const std::vector<int32_t> ids = made_up_ids(3 * kBlock + 5, 1);
  PrefixCache::Sequence first = tree.run(ids);
  EXPECT_EQ(tree.adopted, 0);
  PrefixCache::Sequence second = tree.run(ids);
  EXPECT_EQ(tree.adopted, 3 * kBlock);
  EXPECT_TRUE(std::equal(first.blocks.begin(), first.blocks.begin() + 3, second.blocks.begin()));
  EXPECT_NE(first.blocks[3], second.blocks[3]);
  EXPECT_EQ(tree.room.pool().free_blocks(), 20 - 5);
  tree.run({ids.begin(), ids.begin() + 2 * kBlock});
  EXPECT_EQ(tree.adopted, kBlock);  // the last token of the second block is to be computed
}

TEST(PrefixCache, TellsWeightsAndTokensApart) {
  Tree tree(40);
  std::vector<int32_t> ids = made_up_ids(2 * kBlock + 1, 1);
  tree.run(ids, "base");
  tree.run(ids, "adapter");
  EXPECT_EQ(tree.adopted, 0);
  tree.run(ids, "adapter");
  EXPECT_EQ(tree.adopted, 2 * kBlock);
  ids[kBlock] ^= 1;
  tree.run(ids, "base");
  EXPECT_EQ(tree.adopted, kBlock);
  ids[0] ^= 1;
  tree.run(ids, "base");
  EXPECT_EQ(tree.adopted, 0);
}

TEST(PrefixCache, TwoThatComputedTheSameKeepOneCopy) {
  Tree tree(20);
  const std::vector<int32_t> ids = made_up_ids(2 * kBlock + 1, 1);
  PrefixCache::Sequence a, b;
  for (PrefixCache::Sequence* s : {&a, &b}) {
    ASSERT_TRUE(tree.cache.reserve(*s, static_cast<int64_t>(ids.size())));
    s->tokens = static_cast<int64_t>(ids.size());
  }
  EXPECT_EQ(tree.room.pool().free_blocks(), 14);
  tree.cache.publish(a, "base", ids);
  tree.cache.publish(b, "base", ids);
  EXPECT_EQ(tree.room.pool().free_blocks(), 16);
  EXPECT_EQ(a.blocks[1], b.blocks[1]);
  tree.cache.release(a);
  EXPECT_EQ(tree.cache.kept_blocks(), 0);  // b holds them
  tree.cache.release(b);
  EXPECT_EQ(tree.cache.kept_blocks(), 2);
  EXPECT_EQ(tree.cache.free_blocks(), 20);
}

TEST(PrefixCache, GivesUpWhatWasUsedLeastRecentlyFromItsEnd) {
  Tree tree(6);
  const std::vector<int32_t> old = made_up_ids(3 * kBlock, 1), young = made_up_ids(3 * kBlock, 2);
  PrefixCache::Sequence a = tree.run(old), b = tree.run(young);
  tree.cache.release(a);
  tree.cache.release(b);
  PrefixCache::Sequence more;
  ASSERT_TRUE(tree.cache.reserve(more, kBlock));
  tree.cache.release(more);
  PrefixCache::Sequence again;
  tree.cache.adopt(again, "base", old);
  EXPECT_EQ(again.tokens, 2 * kBlock);  // its last block was given up, which nothing can follow
  tree.cache.release(again);
  ASSERT_TRUE(tree.cache.reserve(more, 6 * kBlock));
  EXPECT_EQ(tree.cache.kept_blocks(), 0);
  EXPECT_FALSE(tree.cache.reserve(again, kBlock));
}

// As the batcher's company test, but that many begin alike and two sets of weights are asked.
TEST(PrefixCache, LeavesAnswersAsTheyAreWithoutIt) {
  const BatcherSettings settings{.sequences = 6, .pass_rows = 160, .dearest = dearest()};
  std::vector<Request> requests = made_up_requests(60);
  std::mt19937 random(7);
  for (size_t i = 0; i < requests.size(); ++i) {
    std::vector<int32_t> ids = made_up_ids(static_cast<int64_t>(random() % 120), random() % 3);
    ids.insert(ids.end(), requests[i].ids.begin(), requests[i].ids.begin() + 1);
    requests[i].ids = ids;
    requests[i].weights = i % 2 == 0 ? "a" : "b";
  }
  std::vector<Answer> alone;
  for (const Request& r : requests) alone.push_back(Room({.batcher = settings}).alone(r));
  for (const int64_t blocks : {24, 200}) {
    Room room({.blocks = blocks, .batcher = settings});
    const std::vector<Answer> answers = answer_all(room.batcher(), requests);
    EXPECT_EQ(room.batcher().preemptions() > 0, blocks == 24);
    EXPECT_GT(room.batcher().load().prefix_hits, room.batcher().load().prefix_queries / 4);
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(answers[i].ids, alone[i].ids) << i;
      for (size_t t = 0; t < alone[i].tokens.size(); ++t) {
        EXPECT_EQ(answers[i].tokens.at(t).top, alone[i].tokens[t].top) << i;
      }
    }
  }
}

// Equal prompts that come together: the first is computed, the others wait for it and share it.
TEST(PrefixCache, EqualPromptsAreComputedOnce) {
  Room room({.blocks = 64, .batcher = {.sequences = 4, .pass_rows = 160}});
  const Request request{.ids = made_up_ids(130, 3), .max_tokens = 4};
  const std::vector<Answer> answers = answer_all(room.batcher(), {request, request, request});
  EXPECT_EQ(room.batcher().speed().prompt_tokens, 130 + 2 * (130 - 8 * kBlock));
  EXPECT_EQ(answers[0].ids, answers[1].ids);
  EXPECT_EQ(answers[0].ids, answers[2].ids);
}

std::vector<Chosen> scores_of(Batcher& batcher, const std::vector<Request>& requests, size_t which) {
  std::vector<uint64_t> numbers;
  for (const Request& r : requests) numbers.push_back(batcher.submit(r));
  std::vector<Chosen> scores;
  while (!batcher.idle()) {
    for (const Event& event : batcher.step()) {
      const auto* scored = std::get_if<Scored>(&event.what);
      if (scored == nullptr || event.request != numbers[which]) continue;
      scores.insert(scores.end(), scored->tokens.begin(), scored->tokens.end());
    }
  }
  return scores;
}

// ln p of each of the prompt's tokens, from the logits behind those before it.
TEST(PromptScores, AreTheLogProbabilitiesOfTheModel) {
  const BatcherSettings settings{.sequences = 3, .pass_rows = 80, .prompt_logprobs = 4};
  const Request request{.ids = made_up_ids(150, 9), .max_tokens = 0, .prompt_logprobs = 3};
  Room room({.batcher = settings});
  const std::vector<Chosen> scores = scores_of(room.batcher(), {request}, 0);
  ASSERT_EQ(scores.size(), request.ids.size() - 1);
  CachedSequence sequence;
  ASSERT_TRUE(room.pool().reserve(sequence, 150));
  for (size_t i = 0; i + 1 < request.ids.size(); ++i) {
    const Decoder::Input input{.sequence = &sequence, .ids = std::span(request.ids).subspan(i, 1)};
    const std::vector<float> logits = room.decoder().append_for_logits({&input, 1}).front();
    double sum = 0;
    for (const float l : logits) sum += std::exp(static_cast<double>(l));
    EXPECT_EQ(scores[i].id, request.ids[i + 1]);
    EXPECT_NEAR(scores[i].logprob, logits[static_cast<size_t>(scores[i].id)] - std::log(sum), 1e-5);
    ASSERT_EQ(scores[i].top.size(), 3u);
    EXPECT_NEAR(scores[i].top[0].logprob, *std::ranges::max_element(logits) - std::log(sum), 1e-5);
    EXPECT_GE(scores[i].top[0].logprob, scores[i].top[1].logprob);
  }
}

// Also where the prompt was put off in the middle, and behind others with the same beginning.
TEST(PromptScores, AreTheSameInAnyCompany) {
  const BatcherSettings settings{.sequences = 4, .pass_rows = 80, .dearest = dearest(), .prompt_logprobs = 4};
  const Request request{.ids = made_up_ids(150, 9), .max_tokens = 30, .prompt_logprobs = 0};
  Room alone({.batcher = settings}), company({.blocks = 21, .batcher = settings});
  const std::vector<Request> requests{
      {.ids = made_up_ids(70, 9), .max_tokens = 60}, {.ids = made_up_ids(70, 8), .max_tokens = 60}, request};
  const std::vector<Chosen> got = scores_of(company.batcher(), requests, 2);
  EXPECT_GT(company.batcher().preemptions(), 0);
  const std::vector<Chosen> expected = scores_of(alone.batcher(), {request}, 0);
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i].logprob, expected[i].logprob) << i;
}

TEST(PromptScores, AreRefusedWhereTheyAreNotOffered) {
  Room room;
  EXPECT_TRUE(room.alone({.ids = {1, 2}, .prompt_logprobs = 0}).error);
}

}  // namespace
}  // namespace drover
