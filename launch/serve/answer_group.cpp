#include "launch/serve/answer_group.h"

#include <cmath>
#include <random>

#include "kernels/base/log.h"
#include "launch/serve/server_metrics.h"

namespace drover {

using openai::ApiError;

namespace {

double seconds_between(std::chrono::steady_clock::time_point from, std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

uint64_t drawn_seed() {
  thread_local std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

const char* word_of(openai::FinishReason reason) {
  switch (reason) {
    case openai::FinishReason::stop: return "stop";
    case openai::FinishReason::length: return "length";
    default: return "tool_calls";
  }
}

}  // namespace

std::vector<int32_t> stop_ids_of(const AnswerOrder& order) {
  std::vector<int32_t> ids = order.options.stop_ids;
  const std::vector<int32_t>& own = order.model->manner.stop_ids;
  if (!order.options.ignore_eos) ids.insert(ids.end(), own.begin(), own.end());
  return ids;
}

AnswerGroup::AnswerGroup(Serving& serving, Call call, AnswerOrder order, std::unique_ptr<AnswerWriter> writer)
    : serving_(serving), call_(std::move(call)), order_(std::move(order)), writer_(std::move(writer)) {
  const openai::AnswerTextSettings text{.stop = order_.options.stop,
                                        .skip_special = order_.options.skip_special_tokens,
                                        .logprobs = order_.options.sampling.logprobs.has_value()};
  left_ = order_.prompts.size() * static_cast<size_t>(order_.options.n);
  for (size_t i = 0; i < left_; ++i) answers_.emplace_back(openai::AnswerText(serving_.tokenizer, text));
}

std::vector<int64_t> AnswerGroup::lengths() const {
  std::vector<int64_t> lengths;
  for (const auto& ids : order_.prompts) {
    lengths.push_back(
        openai::answer_tokens(order_.options, static_cast<int64_t>(ids.size()), serving_.context, order_.preset));
  }
  return lengths;
}

void AnswerGroup::check_queue() const {
  const ServeSettings& s = serving_.settings;
  const int64_t asked = static_cast<int64_t>(answers_.size());
  if (asked > s.queue + s.sequences) {
    throw openai::invalid_request(
        "n", fmt::format("{} answers are asked for in one request; at most {} may be", asked, s.queue + s.sequences));
  }
  const PassLoop::State state = serving_.loop.state();
  const int64_t waiting = state.load.waiting + state.submitted;
  const int64_t room = s.queue + std::max<int64_t>(0, s.sequences - state.load.running);
  if (waiting + asked > room) {
    throw openai::overloaded(fmt::format("{} answers wait already; try again in a moment", waiting));
  }
}

Request AnswerGroup::request_for(size_t answer, int64_t max_tokens, uint64_t seed) const {
  const openai::AnswerOptions& o = order_.options;
  Request request{.ids = order_.prompts[prompt_of(answer)],
                  .sampling = o.sampling,
                  .stop_ids = stop_ids_of(order_),
                  .max_tokens = max_tokens,
                  .number = answer % static_cast<size_t>(o.n),
                  .slot = order_.model->slot,
                  .weights = order_.model->weights,
                  .prompt_logprobs = order_.prompt_logprobs};
  if (max_tokens == 0 && !request.prompt_logprobs) request.prompt_logprobs = 0;  // something is to be computed
  request.sampling.seed = seed;
  return request;
}

void AnswerGroup::start() {
  const std::vector<int64_t> most = lengths();
  check_queue();
  const uint64_t seed = order_.options.seed ? order_.options.sampling.seed : drawn_seed();
  {
    const std::lock_guard lock(mutex_);  // no event is taken before all have their tickets
    for (size_t i = 0; i < answers_.size(); ++i) {
      serving_.metrics.arrived(adapter());
      answers_[i].ticket = serving_.loop.submit(
          request_for(i, most[prompt_of(i)], seed),
          [self = shared_from_this(), i](const Event& event) { return self->take(i, event); }, order_.form);
    }
  }
  call_.exchange->when_gone([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->abandon();
  });
}

bool AnswerGroup::take(size_t answer, const Event& event) {
  const std::lock_guard lock(mutex_);
  One& one = answers_[answer];
  if (over_ || one.ended) return false;
  try {
    if (const auto* chosen = std::get_if<Chosen>(&event.what)) return take_token(answer, *chosen);
    if (const auto* scored = std::get_if<Scored>(&event.what)) take_scores(answer, *scored);
    if (const auto* last = std::get_if<Stopped>(&event.what); last && order_.stop_entries)
      one.text.stop_at(last->token);
    if (const auto* finish = std::get_if<Finish>(&event.what)) end(answer, *finish == Finish::stop);
    if (const auto* error = std::get_if<Error>(&event.what)) fail(openai::api_error_of(*error));
  } catch (const ApiError& error) {
    fail(error);
  } catch (const std::exception& error) {
    log::warn("an answer failed: {}", error.what());
    fail(openai::internal_error("an internal error; the server's log has more"));
  }
  return !over_ && !one.ended;
}

bool AnswerGroup::take_token(size_t answer, const Chosen& chosen) {
  One& one = answers_[answer];
  const auto now = Clock::now();
  if (one.tokens++ == 0) {
    hand_over_prompt(answer);
    serving_.metrics.first_token(adapter(), seconds_between(call_.begin, now));
  } else {
    serving_.metrics.next_token(seconds_between(one.last, now));
  }
  one.last = now;
  openai::AnswerText::Piece piece = one.text.push(chosen);
  const bool stopped = piece.stopped, wanted = writer_->add(answer, std::move(piece));
  if (wanted && !stopped) return true;
  end(answer, true);
  return false;
}

void AnswerGroup::take_scores(size_t answer, const Scored& scored) {
  One& one = answers_[answer];
  if (one.prompt.empty()) one.prompt.push_back({.id = order_.prompts[prompt_of(answer)].front()});
  for (const Chosen& token : scored.tokens) {
    if (!std::isfinite(token.logprob)) throw openai::internal_error("the model's logits are not finite");
    const auto place = std::ranges::find(token.top, token.id, &Chosen::Likely::id);
    const int64_t rank = place == token.top.end() ? 0 : place - token.top.begin() + 1;
    one.prompt.push_back({.id = token.id, .logprob = token.logprob, .rank = rank, .top = token.top});
  }
}

void AnswerGroup::hand_over_prompt(size_t answer) {
  One& one = answers_[answer];
  if (!order_.prompt_logprobs) return;
  if (one.prompt.empty()) one.prompt.push_back({.id = order_.prompts[prompt_of(answer)].front()});  // all there is
  writer_->prompt(answer, one.prompt);
}

void AnswerGroup::end(size_t answer, bool stopped) {
  One& one = answers_[answer];
  if (one.tokens == 0) hand_over_prompt(answer);
  one.ended = true;
  count_ended(answer, word_of(writer_->end(answer, one.text.finish(), stopped)));
  if (--left_ > 0) return;
  over_ = true;
  openai::Usage usage;
  for (const auto& ids : order_.prompts) usage.prompt_tokens += static_cast<int64_t>(ids.size());
  for (const One& each : answers_) usage.completion_tokens += each.tokens;
  writer_->close(usage);
  log("200");
}

void AnswerGroup::fail(const ApiError& error) {
  over_ = true;
  cancel_all();
  writer_->fail(error);
  log(fmt::format("{} {}", error.status, error.what()));
}

void AnswerGroup::abandon() {
  const std::lock_guard lock(mutex_);
  if (over_) return;
  over_ = true;
  cancel_all();
  log("ended early, as its client left, lagged behind or had no more time,");
}

void AnswerGroup::cancel_all() {
  for (size_t i = 0; i < answers_.size(); ++i) {
    if (std::exchange(answers_[i].ended, true)) continue;
    serving_.loop.cancel(answers_[i].ticket);
    count_ended(i, "abort");
  }
}

void AnswerGroup::count_ended(size_t answer, const std::string& reason) {
  const One& one = answers_[answer];
  serving_.metrics.ended(adapter(), {.reason = reason,
                                     .prompt_tokens = static_cast<int64_t>(order_.prompts[prompt_of(answer)].size()),
                                     .answer_tokens = one.tokens,
                                     .seconds = seconds_between(call_.begin, Clock::now()),
                                     .had_tokens = one.tokens > 0});
}

void AnswerGroup::log(const std::string& outcome) const {
  int64_t prompt_tokens = 0, tokens = 0;
  for (const auto& ids : order_.prompts) prompt_tokens += static_cast<int64_t>(ids.size());
  for (const One& one : answers_) tokens += one.tokens;
  log_call(call_, outcome, fmt::format(", {}: {} + {} tokens", order_.model->id, prompt_tokens, tokens));
}

}  // namespace drover
