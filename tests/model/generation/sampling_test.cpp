// What a request asks of the choice of its tokens: penalties from its own tokens, log-probabilities of the model's own
// logits, and what is refused.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "tests/model/generation/made_up_room.h"

namespace drover {
namespace {

TEST(Penalties, CountAPromptsTokensAndAnAnswers) {
  const std::vector<int32_t> prompt = {3, 4, 4}, answer = {4, 5, 5};
  const Sampling all{
      .repetition_penalty = 1.5f, .frequency_penalty = 0.25f, .presence_penalty = 1, .logit_bias = {{4, -2}, {9, 7}}};
  const auto changes = changes_of(all, prompt, answer);
  ASSERT_EQ(changes.size(), 4u);
  const auto expect = [&](int32_t token, float bias, float repetition, float subtracted) {
    EXPECT_EQ(changes.at(token).bias, bias) << token;
    EXPECT_EQ(changes.at(token).repetition, repetition) << token;
    EXPECT_EQ(changes.at(token).subtracted, subtracted) << token;
  };
  expect(3, 0, 1.5f, 0);
  expect(4, -2, 1.5f, 1.25f);
  expect(5, 0, 1.5f, 1.5f);
  expect(9, 7, 1, 0);
  EXPECT_TRUE(changes_of({}, prompt, answer).empty());
  EXPECT_FALSE(Sampling{}.penalizes());
}

// A model's logits after some tokens, in double; penalties by the definition.
std::vector<double> logits_after(Room& room, const std::vector<int32_t>& ids) {
  CachedSequence sequence;
  room.pool().reserve(sequence, static_cast<int64_t>(ids.size()));
  const Decoder::Input input{.sequence = &sequence, .ids = ids};
  const std::vector<float> logits = room.decoder().append_for_logits({&input, 1}).front();
  room.pool().release(sequence);
  return {logits.begin(), logits.end()};
}

double logprob(const std::vector<double>& logits, size_t token) {
  double sum = 0;
  for (const double l : logits) sum += std::exp(l - logits[token]);
  return -std::log(sum);
}

TEST(Sampling, GreedyWithPenaltiesTakesTheHighestPenalizedLogit) {
  Request request{.ids = made_up_ids(20, 3), .max_tokens = 30};
  request.sampling = {.repetition_penalty = 1.3f,
                      .frequency_penalty = 0.4f,
                      .presence_penalty = 0.3f,
                      .logit_bias = {{17, 1.5f}, {40, -100}}};
  Room room({.batcher = {.sequences = 2, .pass_rows = 80, .dearest = request.sampling}});
  const Answer answer = room.alone(request);
  ASSERT_EQ(answer.ids.size(), 30u);
  std::vector<int32_t> ids = request.ids;
  int32_t changed = 0;
  for (size_t step = 0; step < answer.ids.size(); ++step) {
    const std::vector<double> raw = logits_after(room, ids);
    std::vector<double> logits = raw;
    const auto so_far = std::span(answer.ids).first(step);
    for (int32_t token = 0; token < static_cast<int32_t>(logits.size()); ++token) {
      double& l = logits[static_cast<size_t>(token)];
      if (token == 17) l += 1.5;
      if (token == 40) l -= 100;
      if (std::ranges::count(ids, token) > 0) l = l > 0 ? l / 1.3f : l * 1.3f;
      const auto times = std::ranges::count(so_far, token);
      if (times > 0) l -= 0.3f + 0.4f * static_cast<double>(times);
    }
    const auto highest = [](const std::vector<double>& of) { return std::ranges::max_element(of) - of.begin(); };
    ASSERT_EQ(answer.ids[step], highest(logits)) << "token " << step;
    changed += highest(raw) != highest(logits);
    ids.push_back(answer.ids[step]);
  }
  EXPECT_GT(changed, 3);
}

TEST(Sampling, LogProbabilitiesAreTheModels) {
  Request request{.ids = made_up_ids(20, 3), .max_tokens = 12};
  request.sampling = {
      .greedy = false, .temperature = 1.7f, .top_k = 30, .min_p = 0.001f, .repetition_penalty = 1.2f, .logprobs = 4};
  Room room({.batcher = {.sequences = 3, .pass_rows = 80, .dearest = request.sampling}});
  Request few = request, none = request;
  few.sampling.logprobs = 0;
  none.sampling.logprobs = {};
  const std::vector<Answer> answers = answer_all(room.batcher(), {few, request, none});
  ASSERT_EQ(answers[1].tokens.size(), 12u);
  std::vector<int32_t> ids = request.ids;
  for (size_t step = 0; step < 12; ++step) {
    const Chosen& chosen = answers[1].tokens[step];
    const std::vector<double> logits = logits_after(room, ids);
    EXPECT_NEAR(chosen.logprob, logprob(logits, static_cast<size_t>(chosen.id)), 1e-4);
    ASSERT_EQ(chosen.top.size(), 4u);
    std::vector<size_t> order(logits.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::stable_sort(order, [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(chosen.top[i].id, static_cast<int32_t>(order[i]));
      EXPECT_NEAR(chosen.top[i].logprob, logprob(logits, order[i]), 1e-4);
    }
    EXPECT_EQ(answers[0].tokens[step].id, chosen.id);
    EXPECT_NEAR(answers[0].tokens[step].logprob, chosen.logprob, 1e-5);
    EXPECT_TRUE(answers[0].tokens[step].top.empty());
    EXPECT_EQ(answers[2].tokens[step].id, chosen.id);
    EXPECT_TRUE(std::isnan(answers[2].tokens[step].logprob));
    ids.push_back(chosen.id);
  }
}

TEST(Sampling, OneTokenIsLeftByTopKOrMinP) {
  Room room;
  Request greedy{.ids = made_up_ids(20, 3), .max_tokens = 12};
  const Answer likeliest = room.alone(greedy);
  Request drawn = greedy;
  drawn.sampling = {.greedy = false, .temperature = 5};
  EXPECT_NE(room.alone(drawn).ids, likeliest.ids);
  drawn.sampling.top_k = 1;
  EXPECT_EQ(room.alone(drawn).ids, likeliest.ids);
  drawn.sampling.top_k = 0;
  drawn.sampling.min_p = 1;
  EXPECT_EQ(room.alone(drawn).ids, likeliest.ids);
}

// A batcher's scratch is planned for what its settings say.
TEST(Sampling, MoreThanIsOfferedIsRefused) {
  Room room({.batcher = {.sequences = 2, .pass_rows = 80, .dearest = {.logit_bias = {{1, 1}}, .logprobs = 3}}});
  const auto error_of = [&](const Sampling& sampling) {
    const Answer answer = room.alone({.ids = {5}, .sampling = sampling, .max_tokens = 1});
    return answer.error ? std::string(answer.error->what()) : "";
  };
  EXPECT_EQ(error_of({.presence_penalty = 1, .logit_bias = {{2, 1}}, .logprobs = 3}), "");
  EXPECT_THAT(error_of({.logprobs = 4}), testing::HasSubstr("of 4 tokens are asked for; 3 may be"));
  EXPECT_THAT(error_of({.logit_bias = {{1, 1}, {2, 1}}}), testing::HasSubstr("2 tokens have a bias; 1 may"));
  EXPECT_THAT(error_of({.logit_bias = {{211, 1}}}), testing::HasSubstr("token 211 has a bias"));
  Room plain;
  const Answer refused = plain.alone({.ids = {5}, .sampling = {.repetition_penalty = 2}});
  EXPECT_THAT(refused.error->what(), testing::HasSubstr("penalties and biases are not offered"));
}

}  // namespace
}  // namespace drover
