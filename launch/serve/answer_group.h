// All answers to one HTTP request: `n` to each of its prompts. They live until the last of them has ended, the client
// has gone, or one of them fails, which ends them all.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "launch/serve/answer_writer.h"

namespace drover {

struct AnswerOrder {
  ServedModelPtr model;
  openai::AnswerOptions options;
  std::vector<std::vector<int32_t>> prompts;
  std::optional<int64_t> preset;           // max_tokens where the request has none; nothing: to the end of the context
  std::optional<int64_t> prompt_logprobs;  // so many others at each place of the prompts
  std::string form = {};                   // that the answers are held to (Grammars::filter); empty: none
  // A stop token has an entry among the log-probabilities, as in vLLM: lm-eval takes the last one for the answer's.
  bool stop_entries = false;
};

// Tokens that end its answers: the request's and the model's.
std::vector<int32_t> stop_ids_of(const AnswerOrder& order);

class AnswerGroup : public std::enable_shared_from_this<AnswerGroup> {
 public:
  AnswerGroup(Serving& serving, Call call, AnswerOrder order, std::unique_ptr<AnswerWriter> writer);

  // Hands all answers to the loop. ApiError where they do not fit into the context or the queue; then nothing was done.
  void start();

 private:
  using Clock = std::chrono::steady_clock;
  struct One {
    explicit One(openai::AnswerText text) : text(std::move(text)) {}
    openai::AnswerText text;
    std::vector<openai::PromptToken> prompt;  // with its log-probabilities, as far as they are known
    uint64_t ticket = 0;
    int64_t tokens = 0;  // of the answer
    Clock::time_point last = {};
    bool ended = false;
  };

  std::vector<int64_t> lengths() const;
  void check_queue() const;
  Request request_for(size_t answer, int64_t max_tokens, uint64_t seed) const;
  bool take(size_t answer, const Event& event);
  bool take_token(size_t answer, const Chosen& chosen);
  void take_scores(size_t answer, const Scored& scored);
  void hand_over_prompt(size_t answer);
  void end(size_t answer, bool stopped);
  void fail(const openai::ApiError& error);
  void abandon();  // nobody will read the rest
  void cancel_all();
  void count_ended(size_t answer, const std::string& reason);
  void log(const std::string& outcome) const;
  size_t prompt_of(size_t answer) const { return answer / static_cast<size_t>(order_.options.n); }
  std::string adapter() const { return order_.model->parent.empty() ? "" : order_.model->id; }

  Serving& serving_;
  Call call_;
  AnswerOrder order_;
  std::mutex mutex_;  // of what follows
  std::unique_ptr<AnswerWriter> writer_;
  std::vector<One> answers_;
  size_t left_ = 0;
  bool over_ = false;
};

}  // namespace drover
