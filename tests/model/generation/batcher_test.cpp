// What a request gets, whoever else is answered.
#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "tests/model/generation/made_up_room.h"

namespace drover {
namespace {

std::vector<Answer> each_alone(const std::vector<Request>& requests, const RoomSettings& settings) {
  Room room(settings);
  std::vector<Answer> answers;
  for (const Request& request : requests) answers.push_back(room.alone(request));
  return answers;
}

void expect_same(const Answer& got, const Answer& expected, const std::string& what) {
  EXPECT_EQ(got.ids, expected.ids) << what;
  EXPECT_EQ(got.finish, expected.finish) << what;
  EXPECT_EQ(got.error.has_value(), expected.error.has_value()) << what;
  for (size_t i = 0; i < std::min(got.tokens.size(), expected.tokens.size()); ++i) {
    const Chosen &a = got.tokens[i], &b = expected.tokens[i];
    EXPECT_EQ(std::bit_cast<uint32_t>(a.logprob), std::bit_cast<uint32_t>(b.logprob)) << what;
    EXPECT_EQ(a.top, b.top) << what;
  }
}

const BatcherSettings kBatcher{.sequences = 6, .pass_rows = 160, .dearest = dearest()};

class Company : public testing::TestWithParam<DType> {};

// Requests arrive between passes, some are cancelled, and the pool is so small that answers are put off again and
// again.
TEST_P(Company, LeavesAnAnswerAsItIsAlone) {
  const std::vector<Request> requests = made_up_requests(40);
  const std::vector<Answer> alone = each_alone(requests, {.dtype = GetParam(), .batcher = kBatcher});
  Room room({.dtype = GetParam(), .blocks = 16, .batcher = kBatcher});
  Batcher& batcher = room.batcher();
  std::mt19937 random(5);
  std::map<uint64_t, size_t> index;
  std::map<size_t, Answer> answers;
  std::set<uint64_t> cancelled;
  for (size_t next = 0; next < requests.size() || !batcher.idle();) {
    for (size_t arrivals = random() % 3; arrivals > 0 && next < requests.size(); --arrivals) {
      index[batcher.submit(requests[next])] = next;
      ++next;
    }
    if (random() % 8 == 0 && !index.empty()) {
      const uint64_t victim = std::next(index.begin(), static_cast<std::ptrdiff_t>(random() % index.size()))->first;
      if (!answers[index.at(victim)].complete()) {
        batcher.cancel(victim);
        cancelled.insert(victim);
      }
    }
    for (const Event& event : batcher.step()) {
      EXPECT_FALSE(cancelled.contains(event.request)) << "a cancelled request is silent";
      Answer& answer = answers[index.at(event.request)];
      if (const auto* token = std::get_if<Chosen>(&event.what)) {
        answer.ids.push_back(token->id);
        answer.tokens.push_back(*token);
      }
      if (const auto* finish = std::get_if<Finish>(&event.what)) answer.finish = *finish;
      if (const auto* error = std::get_if<Error>(&event.what)) answer.error = *error;
    }
  }
  EXPECT_GT(batcher.preemptions(), 3);
  EXPECT_EQ(batcher.prefixes().free_blocks(), 16);
  size_t complete = 0;
  for (const auto& [i, answer] : answers) {
    if (!answer.complete()) continue;
    ++complete;
    expect_same(answer, alone[i], fmt::format("request {}", i));
  }
  EXPECT_EQ(complete + cancelled.size(), requests.size());
  EXPECT_GT(cancelled.size(), 2u);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Company, testing::Values(DType::f32),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST(Batcher, EndsAtAStopIdAndAtTheLimits) {
  Room room;
  const Request free{.ids = made_up_ids(9, 1), .max_tokens = 12};
  const Answer whole = room.alone(free);
  EXPECT_EQ(whole.ids.size(), 12u);
  EXPECT_EQ(whole.finish, Finish::length);
  Request stopped = free;
  stopped.stop_ids = {-5, whole.ids[7]};
  const Answer part = room.alone(stopped);
  const auto first = std::ranges::find(whole.ids, whole.ids[7]);
  EXPECT_EQ(part.ids, std::vector<int32_t>(whole.ids.begin(), first));
  EXPECT_EQ(part.finish, Finish::stop);
  Request one = free;
  one.max_tokens = 1;
  EXPECT_EQ(room.alone(one).ids.size(), 1u);
  Request endless = free;
  endless.max_tokens = std::numeric_limits<int64_t>::max();
  const Answer longest = room.alone(endless);
  EXPECT_EQ(longest.ids.size(), 256u - 9 + 1);  // the last one has no successor, and needs no position
  EXPECT_EQ(longest.finish, Finish::length);
  EXPECT_EQ(room.batcher().prefixes().free_blocks(), room.pool().blocks());
}

TEST(Batcher, TellsTheStopTokenWithLogprobs) {
  Room room({.batcher = {.sequences = 6, .pass_rows = 160, .dearest = dearest()}});
  const Request free{.ids = made_up_ids(9, 1), .max_tokens = 3};
  const std::vector<int32_t> ids = room.alone(free).ids;
  for (const bool logprobs : {false, true}) {
    Request stopped = free;
    stopped.stop_ids = {ids[0]};
    if (logprobs) stopped.sampling.logprobs = 1;
    room.batcher().submit(stopped);
    std::vector<Chosen> stops;
    size_t others = 0;
    while (!room.batcher().idle()) {
      for (const Event& event : room.batcher().step()) {
        const auto* stop = std::get_if<Stopped>(&event.what);
        stop ? stops.push_back(stop->token) : static_cast<void>(++others);
      }
    }
    EXPECT_EQ(others, 1u);  // Finish
    ASSERT_EQ(stops.size(), logprobs ? 1u : 0u);
    for (const Chosen& stop : stops) {
      EXPECT_EQ(stop.id, ids[0]);
      EXPECT_LT(stop.logprob, 0);
    }
  }
}

TEST(Batcher, RefusesOnePromptAlone) {
  Room room;
  const Request good{.ids = made_up_ids(9, 1), .max_tokens = 5};
  const std::vector<Answer> answers =
      answer_all(room.batcher(), {Request{.ids = {}}, good, Request{.ids = made_up_ids(256, 2)}, good});
  EXPECT_THAT(answers[0].error->what(), testing::HasSubstr("without tokens"));
  EXPECT_THAT(answers[2].error->what(), testing::HasSubstr("the prompt has 256 tokens"));
  EXPECT_EQ(answers[0].error->fault(), Fault::bad_data);
  EXPECT_EQ(answers[1].ids.size(), 5u);
  EXPECT_EQ(answers[1].ids, answers[3].ids);
}

// A token whose embedding is not a number: who uses it fails, by itself.
TEST(Batcher, NaNOfOneRequestEndsItAlone) {
  class OneNan : public WeightSource {
   public:
    void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) override {
      inner_.read(spec, row, col, to);
      if (spec.name != "model.embed_tokens.weight") return;
      to.as<float>()[(7 - row) * to.pitch] = std::numeric_limits<float>::quiet_NaN();
    }

   private:
    DrawnWeights inner_{11, 0.15f, 0.5f};
  } weights;
  std::vector<Request> requests = made_up_requests(9);
  for (Request& r : requests) std::ranges::replace(r.ids, 7, 8);
  const std::vector<Answer> healthy = each_alone(requests, {.batcher = kBatcher});
  requests[2].ids[40] = requests[5].ids[0] = 7;
  Room room({.batcher = kBatcher, .weights = &weights});
  const std::vector<Answer> answers = answer_all(room.batcher(), requests);
  for (size_t i = 0; i < answers.size(); ++i) {
    if (i == 2 || i == 5) {
      ASSERT_TRUE(answers[i].error);
      EXPECT_EQ(answers[i].error->fault(), Fault::non_finite);
    } else if (std::ranges::find(healthy[i].ids, 7) == healthy[i].ids.end()) {
      expect_same(answers[i], healthy[i], fmt::format("request {}", i));
    }
  }
  EXPECT_EQ(room.batcher().prefixes().free_blocks(), room.pool().blocks());
}

// While a long prompt is read, every answer that is under way gets its token in every pass, and no pass is larger than
// it may be.
TEST(Batcher, LongPromptsDoNotHoldUpAnswers) {
  Room room({.batcher = {.sequences = 4, .pass_rows = 80, .dearest = {}}});
  Batcher& batcher = room.batcher();
  const uint64_t early = batcher.submit({.ids = made_up_ids(5, 1), .max_tokens = 40});
  batcher.step();
  const uint64_t late = batcher.submit({.ids = made_up_ids(250, 2), .max_tokens = 2});
  int64_t passes_of_the_prompt = 0;
  for (bool answered = false; !answered; ++passes_of_the_prompt) {
    const Batcher::Speed before = batcher.speed();
    bool early_got_one = false;
    for (const Event& event : batcher.step()) {
      if (event.request == early) early_got_one = true;
      if (event.request == late) answered = true;
    }
    EXPECT_TRUE(early_got_one);
    const Batcher::Speed& after = batcher.speed();
    EXPECT_LE(after.prompt_tokens + after.answer_tokens - before.prompt_tokens - before.answer_tokens, 80);
    EXPECT_EQ((after.prompt_tokens - before.prompt_tokens) % 64, answered ? 250 % 64 : 0);
  }
  EXPECT_EQ(passes_of_the_prompt, 4);
}

// The oldest answer is never put off, so that all come to an end however small the pool is.
TEST(Batcher, OldestIsNeverPutOff) {
  Room room({.positions = 96, .blocks = 6});
  std::vector<Request> requests;
  for (uint64_t i = 0; i < 5; ++i) requests.push_back({.ids = made_up_ids(10, i), .max_tokens = 80, .number = i});
  std::vector<size_t> order;
  const auto known = [&](size_t index, const Answer& answer) {
    order.push_back(index);
    EXPECT_EQ(answer.ids.size(), 80u);
  };
  answer_all(room.batcher(), requests, {.known = known});
  EXPECT_EQ(order, (std::vector<size_t>{0, 1, 2, 3, 4}));
  EXPECT_GT(room.batcher().preemptions(), 0);
  EXPECT_EQ(room.batcher().prefixes().free_blocks(), 6);
}

TEST(Answers, StopWhereTheCallerSays) {
  Room room;
  const std::vector<Request> requests(3, Request{.ids = made_up_ids(9, 1), .max_tokens = 12});
  const auto stops = [](size_t index, const Answer& answer) { return index == 1 && answer.ids.size() == 4; };
  const std::vector<Answer> answers = answer_all(room.batcher(), requests, {.stops = stops});
  EXPECT_EQ(answers[0].ids.size(), 12u);
  EXPECT_EQ(answers[1].ids.size(), 4u);
  EXPECT_EQ(answers[1].finish, Finish::stop);
  EXPECT_EQ(answers[2].ids, answers[0].ids);
  int passes = 0;
  const std::vector<Answer> given_up = answer_all(room.batcher(), requests, {.gives_up = [&] { return ++passes > 5; }});
  EXPECT_FALSE(given_up[0].complete());
  EXPECT_TRUE(room.batcher().idle());
  EXPECT_EQ(room.batcher().prefixes().free_blocks(), room.pool().blocks());
}

}  // namespace
}  // namespace drover
