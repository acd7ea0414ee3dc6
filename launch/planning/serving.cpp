#include "launch/planning/serving.h"

#include <algorithm>
#include <deque>
#include <vector>

#include "kernels/base/error.h"

namespace drover {

namespace {

constexpr int64_t kFewAnswers = 32;  // that are measured at least: where one begins and ends counts for little then

class Playing {
 public:
  // The users begin in the midst of their answers, each at another token, so that it runs evenly soon.
  Playing(const PassSeconds& pass_seconds, const RequestShape& request, int64_t users)
      : pass_seconds_(pass_seconds), request_(request), users_(static_cast<size_t>(users)) {
    for (int64_t i = 0; i < users; ++i) {
      users_[static_cast<size_t>(i)] = {.prompt = request.prompt_tokens,
                                        .answer = 1 + i * (request.answer_tokens - 1) / users};
      if (request.answer_tokens == 1) send(static_cast<size_t>(i));
    }
  }

  void play_until(int64_t completed) {
    while (completed_ < completed) step();
  }
  void measure() { now_ = decode_seconds_ = first_seconds_ = 0, tokens_ = prompts_ = firsts_ = 0; }

  Carried result() const {
    Carried carried = {.users = static_cast<int64_t>(users_.size())};
    carried.prompt_tokens_per_second = static_cast<double>(prompts_) / now_;
    carried.answer_tokens_per_second = static_cast<double>(tokens_ + firsts_) / now_;
    if (tokens_ > 0) carried.between_tokens_seconds = decode_seconds_ / static_cast<double>(tokens_);
    if (firsts_ > 0) carried.first_token_seconds = first_seconds_ / static_cast<double>(firsts_);
    return carried;
  }

 private:
  struct User {
    int64_t prompt = 0, answer = 0;  // tokens that are done
    double waited = 0;               // since it sent its request
  };

  void send(size_t user) {
    users_[user] = {};
    waiting_.push_back(user);
  }

  // Chunks for the oldest requests; those that are through come to the front of `waiting_` and are counted.
  size_t add_prompts(PassShape& pass) {
    size_t through = 0;
    int64_t room = kChunkTokens;
    for (size_t i = 0; i < waiting_.size() && room > 0; ++i) {
      User& user = users_[waiting_[i]];
      const int64_t tokens = std::min(room, request_.prompt_tokens - user.prompt);
      pass.prompt_tokens += tokens;
      pass.prompt_context += tokens * user.prompt + tokens * (tokens + 1) / 2;
      user.prompt += tokens;
      room -= tokens;
      if (user.prompt == request_.prompt_tokens) ++through;
    }
    return through;
  }

  void step() {
    PassShape pass;
    std::vector<size_t> decoding;
    for (size_t i = 0; i < users_.size(); ++i) {
      if (users_[i].answer == 0) continue;
      decoding.push_back(i);
      pass.context_tokens += request_.prompt_tokens + users_[i].answer;
    }
    pass.decode_rows = static_cast<int64_t>(decoding.size());
    const size_t through = add_prompts(pass);
    const double seconds = pass_seconds_(pass);
    require(seconds > 0, "a pass takes time");
    now_ += seconds;
    prompts_ += pass.prompt_tokens;
    tokens_ += pass.decode_rows;
    decode_seconds_ += seconds * static_cast<double>(pass.decode_rows);
    for (size_t i : waiting_) users_[i].waited += seconds;
    std::vector<size_t> first(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(through));
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(through));
    for (size_t i : first) {
      ++firsts_;
      first_seconds_ += users_[i].waited;
    }
    for (size_t i : decoding) take(i);
    for (size_t i : first) take(i);
  }

  void take(size_t user) {
    if (++users_[user].answer < request_.answer_tokens) return;
    ++completed_;
    send(user);
  }

  const PassSeconds& pass_seconds_;
  RequestShape request_;
  std::vector<User> users_;
  std::deque<size_t> waiting_;  // for their first token, the oldest first
  int64_t completed_ = 0, tokens_ = 0, prompts_ = 0, firsts_ = 0;
  double now_ = 0, decode_seconds_ = 0, first_seconds_ = 0;
};

}  // namespace

Carried serve(const PassSeconds& pass_seconds, const RequestShape& request, int64_t users) {
  require(request.prompt_tokens > 0 && request.answer_tokens > 0 && users > 0, "somebody asks for something");
  Playing playing(pass_seconds, request, users);
  const int64_t warm = std::max(users, kFewAnswers);
  playing.play_until(warm);
  playing.measure();
  playing.play_until(warm + 2 * std::max(users, kFewAnswers));
  return playing.result();
}

MostUsers most_users(const PassSeconds& pass_seconds, const RequestShape& request, const ServingLimits& limits) {
  const int64_t room = limits.room_tokens / (request.prompt_tokens + request.answer_tokens);
  if (room == 0) {
    fail(Fault::usage, "a request of {} + {} tokens has no room: next to the weights there is room for {} tokens",
         request.prompt_tokens, request.answer_tokens, limits.room_tokens);
  }
  const auto in_time = [&](const Carried& c) { return c.between_tokens_seconds <= limits.between_tokens_seconds; };
  const int64_t most = std::min(room, kMostUsers);
  const Carried alone = serve(pass_seconds, request, 1);
  MostUsers best = {alone, room <= kMostUsers ? UsersLimit::room : UsersLimit::count, alone};
  if (!in_time(best.carried)) {
    fail(
        Fault::usage,
        "one answer alone has {:.3g} ms between its tokens, more than the {:.3g} ms allowed; take more GPUs with --tp, "
        "smaller --weights, or allow more with --between-tokens-ms",
        best.carried.between_tokens_seconds * 1e3, limits.between_tokens_seconds * 1e3);
  }
  for (int64_t too_many = most + 1; too_many - best.carried.users > 1;) {
    const int64_t middle = best.carried.users + (too_many - best.carried.users) / 2;
    const Carried carried = serve(pass_seconds, request, middle);
    if (in_time(carried)) {
      best.carried = carried;
    } else {
      too_many = middle;
    }
  }
  if (best.carried.users < most) best.limit = UsersLimit::time;
  return best;
}

}  // namespace drover
