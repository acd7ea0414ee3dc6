// Answers that a filter holds to some tokens: in any company, put off or not, on any mesh.
#include <gmock/gmock.h>

#include <cmath>
#include <mutex>

#include "kernels/comm/threads.h"
#include "tests/model/generation/made_up_room.h"

namespace drover {
namespace {

// Even and odd tokens in turns; a token that was accepted twice, or not at all, turns them round.
class InTurns : public TokenFilter {
 public:
  void allow(std::span<uint32_t> bits) override {
    std::ranges::fill(bits, accepted.size() % 2 == 0 ? 0x55555555u : 0xaaaaaaaau);
  }
  bool accept(int32_t token) override {
    if (static_cast<size_t>(token) % 2 != accepted.size() % 2) return false;
    accepted.push_back(token);
    return true;
  }
  std::vector<int32_t> accepted;
};

// One token after the other, and nothing behind them.
class Dictation : public TokenFilter {
 public:
  explicit Dictation(std::vector<int32_t> text) : text_(std::move(text)) {}
  void allow(std::span<uint32_t> bits) override {
    std::ranges::fill(bits, 0u);
    if (at_ == text_.size()) return;
    const size_t token = static_cast<size_t>(text_[at_]);
    bits[token / 32] = 1u << token % 32;
  }
  bool accept(int32_t token) override {
    if (at_ == text_.size() || token != text_[at_]) return false;
    ++at_;
    return true;
  }

 private:
  std::vector<int32_t> text_;
  size_t at_ = 0;
};

Sampling all_of_it() {
  Sampling sampling = dearest();
  sampling.logprobs = small_model().vocab;
  return sampling;
}

const BatcherSettings kFiltered{.sequences = 6, .pass_rows = 160, .dearest = all_of_it(), .filters = true};

// Every other request has a filter of its own.
std::vector<Request> filtered_requests(size_t count, std::vector<std::shared_ptr<InTurns>>* filters = nullptr) {
  std::vector<Request> requests = made_up_requests(count);
  for (size_t i = 0; i < count; i += 2) {
    const auto filter = std::make_shared<InTurns>();
    requests[i].filter = filter;
    if (i % 4 == 0) requests[i].sampling = {.greedy = false, .temperature = 1.5f, .seed = i};
    if (filters != nullptr) filters->push_back(filter);
  }
  return requests;
}

void expect_turns(const Answer& answer, size_t request) {
  for (size_t t = 0; t < answer.ids.size(); ++t) {
    EXPECT_EQ(static_cast<size_t>(answer.ids[t]) % 2, t % 2) << "request " << request << ", token " << t;
  }
}

TEST(Filter, HoldsInAnyCompany) {
  std::vector<std::shared_ptr<InTurns>> filters;
  std::vector<Answer> alone;
  Room one({.batcher = kFiltered});
  for (const Request& request : filtered_requests(30)) alone.push_back(one.alone(request));
  Room room({.blocks = 16, .batcher = kFiltered});
  const std::vector<Answer> answers = answer_all(room.batcher(), filtered_requests(30, &filters));
  EXPECT_GT(room.batcher().preemptions(), 3);
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].ids, alone[i].ids) << "request " << i;
    ASSERT_EQ(answers[i].finish, Finish::length);
    if (i % 2 == 1) continue;
    expect_turns(answers[i], i);
    EXPECT_EQ(filters[i / 2]->accepted, answers[i].ids) << "request " << i;
  }
}

TEST(Filter, HoldsOnEveryMesh) {
  const RoomSettings settings{.blocks = 22, .batcher = kFiltered};
  const auto greedy = [] {
    std::vector<Request> requests = filtered_requests(12);
    for (Request& r : requests) r.sampling.greedy = true;
    return requests;
  };
  Room one(settings);
  const std::vector<Answer> expected = answer_all(one.batcher(), greedy());
  for (const auto& [tp, pp] : {std::pair{2, 1}, std::pair{1, 2}, std::pair{2, 2}}) {
    std::mutex mutex;
    run_on_threads({{Axis::tp, tp}, {Axis::pp, pp}}, [&](Mesh& mesh) {
      Room room(settings, mesh);
      const std::vector<Answer> got = answer_all(room.batcher(), greedy());
      const std::lock_guard lock(mutex);
      for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i].ids, expected[i].ids) << "request " << i;
    });
  }
}

// Penalties and biases choose among what is allowed.
TEST(Filter, IsStrongerThanABias) {
  Room room({.batcher = kFiltered});
  Request request{.ids = made_up_ids(20, 3), .max_tokens = 10, .filter = std::make_shared<InTurns>()};
  request.sampling = {.repetition_penalty = 1.9f, .logit_bias = {{17, 100}}};
  const Answer answer = room.alone(request);
  ASSERT_EQ(answer.ids.size(), 10u);
  expect_turns(answer, 0);
  EXPECT_EQ(answer.ids[1], 17);
}

TEST(Filter, LeavesLogProbabilitiesTheModels) {
  Room room({.batcher = kFiltered});
  Request request{.ids = made_up_ids(20, 3), .max_tokens = 6, .filter = std::make_shared<InTurns>()};
  request.sampling.logprobs = small_model().vocab;
  for (const Chosen& chosen : room.alone(request).tokens) {
    double all = 0, likely = 0;
    for (const Chosen::Likely& one : chosen.top) {
      all += std::exp(static_cast<double>(one.logprob));
      if (one.id % 2 == chosen.id % 2) likely = std::max(likely, static_cast<double>(one.logprob));
      EXPECT_GT(one.logprob, -1000) << one.id;
    }
    EXPECT_NEAR(all, 1, 1e-4);
  }
}

TEST(Filter, AllowsTheEndWhereItLikes) {
  Room room({.batcher = kFiltered});
  const Answer ended = room.alone({.ids = made_up_ids(5, 1),
                                   .stop_ids = {7},
                                   .max_tokens = 20,
                                   .filter = std::make_shared<Dictation>(std::vector{9, 9, 210, 4, 7})});
  EXPECT_EQ(ended.ids, (std::vector<int32_t>{9, 9, 210, 4}));
  EXPECT_EQ(ended.finish, Finish::stop);
}

TEST(Filter, ThatAllowsNothingEndsItsRequestAlone) {
  Room room({.batcher = kFiltered});
  const Request other{.ids = made_up_ids(9, 1), .max_tokens = 12};
  const Answer expected = room.alone(other);
  // Of equals the first is taken, which is a stop id here: that is no end.
  const Request stuck{.ids = made_up_ids(5, 1),
                      .stop_ids = {0},
                      .max_tokens = 20,
                      .filter = std::make_shared<Dictation>(std::vector{9, 8})};
  const std::vector<Answer> answers = answer_all(room.batcher(), {other, stuck, other});
  ASSERT_TRUE(answers[1].error);
  EXPECT_EQ(answers[1].ids, (std::vector<int32_t>{9, 8}));
  EXPECT_EQ(answers[1].error->fault(), Fault::bad_data);
  EXPECT_THAT(answers[1].error->what(), testing::HasSubstr("no token can follow the answer so far"));
  EXPECT_EQ(answers[0].ids, expected.ids);
  EXPECT_EQ(answers[2].ids, expected.ids);
  EXPECT_EQ(room.batcher().prefixes().free_blocks(), room.pool().blocks());
}

TEST(Filter, IsRefusedWhereItIsNotOffered) {
  Room room;
  const Answer refused = room.alone({.ids = {5}, .filter = std::make_shared<InTurns>()});
  EXPECT_THAT(refused.error->what(), testing::HasSubstr("a grammar are not offered here"));
}

TEST(Filter, IsPartOfTheRehearsal) {
  BatcherSettings settings{.sequences = 6, .pass_rows = 70, .dearest = {.logprobs = 0}};
  ModelConfig model = small_model();
  model.vocab = 20'011;  // so that logits are the most of it
  const auto rehearsed = [&] {
    Room room({.model = model, .batcher = settings});
    Batcher::rehearse(room.decoder(), settings);
    return room.scratch_peak();
  };
  const int64_t without = rehearsed();
  settings.filters = true;
  const int64_t with = rehearsed();
  EXPECT_GT(with, without);
  Room room({.model = model, .batcher = settings});
  std::vector<Request> requests;
  for (uint64_t i = 0; i < 6; ++i) {
    requests.push_back({.ids = made_up_ids(1, i), .max_tokens = 3, .filter = std::make_shared<InTurns>()});
    requests.back().sampling.logprobs = 0;
  }
  requests.back().ids = made_up_ids(64, 9);
  answer_all(room.batcher(), requests);
  EXPECT_LE(room.scratch_peak(), with);
}

}  // namespace
}  // namespace drover
