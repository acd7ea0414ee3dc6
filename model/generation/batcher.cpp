#include "model/generation/batcher.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace drover {

namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

Batcher::Batcher(Decoder& decoder, const BatcherSettings& settings)
    : decoder_(decoder), settings_(settings), prefixes_(decoder.pool()) {
  require(settings.sequences > 0 && settings.pass_rows >= settings.sequences + BatcherSettings::kChunk,
          "a pass holds a token of every sequence and a chunk of a prompt");
  decoder_.replay_up_to(settings.sequences);
}

int64_t Batcher::longest() const { return std::min(decoder_.stage().max_positions(), decoder_.pool().tokens()); }

std::string Batcher::why_not(const Request& request) const {
  const Sampling &asked = request.sampling, &most = settings_.dearest;
  const int64_t tokens = static_cast<int64_t>(request.ids.size());
  if (tokens == 0) return "a prompt without tokens cannot be answered; give it some text";
  if (tokens >= longest()) {
    return fmt::format("the prompt has {} tokens; prompt and answer together may have {}", tokens, longest());
  }
  if (asked.penalizes() && !most.penalizes()) return "penalties and biases are not offered here";
  if (request.filter && !settings_.filters) return "answers that follow a grammar are not offered here";
  if (asked.logit_bias.size() > most.logit_bias.size()) {
    return fmt::format("{} tokens have a bias; {} may", asked.logit_bias.size(), most.logit_bias.size());
  }
  const int64_t vocab = decoder_.stage().config().vocab;
  for (const auto& [token, bias] : asked.logit_bias) {
    if (token < 0 || token >= vocab) return fmt::format("token {} has a bias; the model has {} tokens", token, vocab);
  }
  const int64_t logprobs = std::min(vocab, most.logprobs.value_or(-1));
  if (asked.logprobs.value_or(-1) > logprobs) {
    return fmt::format("the log-probabilities of {} tokens are asked for; {} may be", *asked.logprobs,
                       std::max<int64_t>(logprobs, 0));
  }
  const int64_t of_prompt = std::min(vocab, settings_.prompt_logprobs.value_or(-1));
  if (request.prompt_logprobs.value_or(-1) > of_prompt) {
    return fmt::format("the log-probabilities of {} tokens are asked for at each place of the prompt; {} may be",
                       *request.prompt_logprobs, std::max<int64_t>(of_prompt, 0));
  }
  return {};
}

uint64_t Batcher::submit(Request request) {
  require(request.max_tokens > 0 || request.prompt_logprobs, "a request asks for something");
  const uint64_t number = submitted_++;
  const std::string why = why_not(request);
  if (!why.empty()) {
    refused_.push_back({number, Error(Fault::bad_data, why)});
    return number;
  }
  auto job = std::make_unique<Job>(Job{.number = number, .request = std::move(request), .ids = {}, .cache = {}});
  job->ids = job->request.ids;
  waiting_.push_back(std::move(job));
  return number;
}

void Batcher::cancel(uint64_t request) {
  const auto is_it = [&](const auto& job) { return job->number == request; };
  std::erase_if(refused_, [&](const Event& event) { return event.request == request; });
  std::erase_if(waiting_, is_it);
  for (const auto& job : running_) {
    if (is_it(job)) prefixes_.release(job->cache);
  }
  std::erase_if(running_, is_it);
}

// Its blocks go to those that were there before it. It waits before all others, and is computed again from its first
// token: its ids are known, so that nothing is drawn twice.
void Batcher::preempt_youngest() {
  std::unique_ptr<Job> job = std::move(running_.back());
  running_.pop_back();
  prefixes_.release(job->cache);
  waiting_.push_front(std::move(job));
  ++preemptions_;
}

void Batcher::add(Pass& pass, Job& job, int64_t tokens) {
  const auto ids = std::span(job.ids).subspan(static_cast<size_t>(job.cache.tokens), static_cast<size_t>(tokens));
  (job.decodes() ? pass.answer_rows : pass.prompt_rows) += tokens;
  Decoder::Input input{.sequence = &job.cache, .ids = ids, .slot = job.request.slot};
  if (job.request.prompt_logprobs) score(job, input);
  if (tokens == job.pending() && !job.only_scored()) {
    input.sampling = &job.request.sampling;
    input.filter = job.request.filter.get();
    input.draw = {job.request.number, static_cast<uint64_t>(job.answered())};
    input.prompt = job.request.ids;
    input.answer = std::span(job.ids).subspan(job.request.ids.size());
    pass.choosing.push_back(&job);
  }
  pass.inputs.push_back(input);
  pass.jobs.push_back(&job);
}

// The tokens behind those of the input, as far as they belong to the prompt and were not scored before the job was put
// off.
void Batcher::score(Job& job, Decoder::Input& input) {
  const int64_t begin = std::max(job.cache.tokens, job.scored), taken = static_cast<int64_t>(input.ids.size());
  const int64_t end = std::min(job.cache.tokens + taken, static_cast<int64_t>(job.request.ids.size()) - 1);
  if (begin >= end) return;
  input.scored = {
      .first_row = begin - job.cache.tokens,
      .tokens = std::span(job.request.ids).subspan(static_cast<size_t>(begin) + 1, static_cast<size_t>(end - begin)),
      .top = *job.request.prompt_logprobs,
      .scores = &job.scores};
}

void Batcher::add_decodes(Pass& pass) {
  for (size_t i = 0; i < running_.size(); ++i) {
    if (!running_[i]->decodes()) continue;
    const int64_t tokens = static_cast<int64_t>(running_[i]->ids.size());
    while (i < running_.size() && !prefixes_.reserve(running_[i]->cache, tokens)) preempt_youngest();
    if (i < running_.size()) add(pass, *running_[i], 1);
  }
}

bool Batcher::add_chunks(Pass& pass, Job& job) {
  const int64_t begin = job.cache.tokens, end = static_cast<int64_t>(job.ids.size());
  int64_t taken = begin;
  while (taken < end) {
    const int64_t border = std::min(end, (taken / BatcherSettings::kChunk + 1) * BatcherSettings::kChunk);
    if (pass.rows() + border - begin > settings_.pass_rows) break;
    taken = border;
  }
  if (taken > begin) add(pass, job, taken - begin);
  return taken == end;
}

// Whether a prompt that is being computed begins like this one, by more than half of it and by more than is there now:
// a moment later that part can be shared.
bool Batcher::shares_with_a_running_prompt(const Job& job) const {
  const auto half = static_cast<std::ptrdiff_t>(job.ids.size() / 2);
  return std::ranges::any_of(running_, [&](const auto& other) {
    if (other->pending() <= 1 || other->weights() != job.weights()) return false;
    const auto common = std::ranges::mismatch(job.ids, other->ids).in1 - job.ids.begin();
    return common >= KvPool::kBlockTokens && common > half;
  });
}

// The next in line, when there is room for all its tokens and the one behind them.
void Batcher::admit() {
  Job& next = *waiting_.front();
  const int64_t tokens = static_cast<int64_t>(next.ids.size());
  if (static_cast<int64_t>(running_.size()) == settings_.sequences || shares_with_a_running_prompt(next)) return;
  if (!next.request.prompt_logprobs) prefixes_.adopt(next.cache, next.weights(), next.ids);
  const int64_t held = static_cast<int64_t>(next.cache.blocks.size());
  if (KvPool::blocks_for(std::min(tokens + 1, longest())) - held > prefixes_.free_blocks()) {
    prefixes_.release(next.cache);
    return;
  }
  require(prefixes_.reserve(next.cache, tokens), "the free blocks were counted");
  prefix_queries_ += tokens;
  prefix_hits_ += next.cache.tokens;
  running_.push_back(std::move(waiting_.front()));
  waiting_.pop_front();
}

Batcher::Load Batcher::load() const {
  return {.running = static_cast<int64_t>(running_.size()),
          .waiting = static_cast<int64_t>(waiting_.size()),
          .prefix_queries = prefix_queries_,
          .prefix_hits = prefix_hits_};
}

// What is known of prompts after a pass: their scores; the end of those that nothing follows.
void Batcher::finish_prompts(const Pass& pass) {
  std::vector<uint64_t> ended;
  for (Job* job : pass.jobs) {
    prefixes_.publish(job->cache, job->weights(), job->ids);
    if (!job->scores.empty()) {
      job->scored = std::min(job->cache.tokens, static_cast<int64_t>(job->request.ids.size()) - 1);
      events_.emplace_back(job->number, Scored{std::exchange(job->scores, {})});
    }
    if (job->only_scored() && job->pending() == 0) {
      events_.push_back({job->number, Finish::length});
      ended.push_back(job->number);
    }
  }
  for (const uint64_t number : ended) cancel(number);
}

bool Batcher::take(Job& job, const Chosen& chosen) {
  if (chosen.id == Chosen::kNotFinite) {
    events_.push_back({job.number, Error(Fault::non_finite,
                                         "the model's logits are not finite: its weights or the adapter's hold such "
                                         "values, or overflow bf16 (try train.dtype=fp32)")});
    return false;
  }
  if (job.request.filter && !job.request.filter->accept(chosen.id)) {
    events_.push_back({job.number, Error(Fault::bad_data,
                                         "no token can follow the answer so far in the grammar that was asked for; "
                                         "ask for another one")});
    return false;
  }
  if (std::ranges::find(job.request.stop_ids, chosen.id) != job.request.stop_ids.end()) {
    if (job.request.sampling.logprobs) events_.emplace_back(job.number, Stopped{chosen});
    events_.push_back({job.number, Finish::stop});
    return false;
  }
  events_.push_back({job.number, chosen});
  job.ids.push_back(chosen.id);
  if (job.answered() < job.request.max_tokens && job.cache.tokens < longest()) return true;
  events_.push_back({job.number, Finish::length});
  return false;
}

std::span<const Event> Batcher::step() {
  events_ = std::exchange(refused_, {});
  Pass pass;
  add_decodes(pass);
  bool room = true;
  for (size_t i = 0; room; ++i) {
    if (i == running_.size() && !waiting_.empty()) admit();
    if (i >= running_.size()) break;
    Job& job = *running_[i];
    if (!job.decodes()) room = add_chunks(pass, job);
  }
  if (pass.inputs.empty()) return events_;

  // Rows of one adapter next to each other, so that each linear is gone through once for all of them.
  std::ranges::stable_sort(pass.inputs, {}, &Decoder::Input::slot);
  std::ranges::stable_sort(pass.choosing, {}, [](const Job* job) { return job->request.slot; });

  const auto begin = Clock::now();
  const std::vector<Chosen> chosen = decoder_.append(pass.inputs);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const double share = static_cast<double>(pass.answer_rows) / static_cast<double>(pass.rows());
  speed_.prompt_tokens += pass.prompt_rows;
  speed_.answer_tokens += pass.answer_rows;
  speed_.prompt_seconds += seconds * (1 - share);
  speed_.answer_seconds += seconds * share;

  finish_prompts(pass);
  for (size_t i = 0; i < chosen.size(); ++i) {
    if (!take(*pass.choosing[i], chosen[i])) cancel(pass.choosing[i]->number);
  }
  return events_;
}

void Batcher::rehearse(Decoder& decoder, const BatcherSettings& settings) {
  const int64_t rows = std::min(settings.pass_rows, decoder.pool().tokens());
  decoder.rehearse(rows, settings.sequences, settings.dearest, settings.filters, settings.prompt_logprobs);
}

}  // namespace drover
