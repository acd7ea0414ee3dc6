// Continuous batching: requests come and go, and every pass takes the next token of each answer that is under way, then
// chunks of the prompts behind them in order of arrival. Ids only, no text. Source: Yu et al. 2022 (Orca); Agrawal et
// al. 2024 (Sarathi-Serve: chunked prefills share a pass with decodes).
//
// A request's answer is the same alone and in any company: its draws are named by the request, chunk borders count from
// its first token, and where it waited or was put off (its blocks given to an older one) it is computed again in the
// same order. What it has in common with others' beginnings is computed once (PrefixCache). On the CPU that holds bit
// for bit.
//
// All ranks that share the model run a copy each and make the same calls; the copies decide alike, since they see the
// same chosen tokens and count the same blocks.
#pragma once
#include <deque>
#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "kernels/base/error.h"
#include "model/generation/decoder.h"
#include "model/generation/prefix_cache.h"

namespace drover {

struct Request {
  std::vector<int32_t> ids;  // the prompt, at least one
  Sampling sampling;
  std::vector<int32_t> stop_ids;  // tokens that end the answer; they are not part of it
  int64_t max_tokens = 256;       // of the answer; 0: only the prompt is looked at
  uint64_t number = 0;            // names its random draws
  int slot = kOwnSlot;            // of its adapter (AdapterPool), which stays attached until the answer is complete
  // The content of that adapter, where a slot may be another's later: keys and values are shared among requests with
  // the same slot and content.
  std::string weights = {};
  // Asks for the log-probability of every token of the prompt but the first, with so many of the likeliest in its
  // place.
  std::optional<int64_t> prompt_logprobs = {};
  std::shared_ptr<TokenFilter> filter = {};  // of this answer alone; null: every token may come
};

enum class Finish : uint8_t { stop, length };  // a stop id was chosen; max_tokens, or all positions, were reached

// The next tokens of the prompt, from its second on, as the model takes them (Request::prompt_logprobs).
struct Scored {
  std::vector<Chosen> tokens;
};

// The stop id that was chosen, which is no part of the answer; only where log-probabilities are asked for.
struct Stopped {
  Chosen token;
};

// What happened to a request: tokens of its prompt or of its answer, or its end.
struct Event {
  uint64_t request;
  // An error is of this request alone: bad_data for what cannot be answered, non_finite where its logits are.
  std::variant<Chosen, Scored, Stopped, Finish, Error> what;
};

struct BatcherSettings {
  int64_t sequences = 8;    // answered at once, at most
  int64_t pass_rows = 512;  // tokens of one pass, at most
  // What requests may ask for at most: penalties where these are, and as many log-probabilities and biases. Scratch is
  // planned for them.
  Sampling dearest = {};
  std::optional<int64_t> prompt_logprobs = {};  // nothing: they are not offered
  bool filters = false;                         // requests may have one
  static constexpr int64_t kChunk = 64;         // of a prompt, counted from its first token; a pass takes whole ones
};

class Batcher {
 public:
  // pass_rows must hold a token of every sequence and a chunk. A prompt with its answer may have as many tokens as the
  // stage has positions and the pool has room for.
  Batcher(Decoder& decoder, const BatcherSettings& settings);

  // Never fails by itself: what is wrong with the request becomes its event.
  uint64_t submit(Request request);
  void cancel(uint64_t request);  // no event of it follows; one that has ended is passed over
  bool idle() const { return waiting_.empty() && running_.empty() && refused_.empty(); }

  // One pass. Its events: refusals, then answers that grew, then prompts; they are good until the next call.
  std::span<const Event> step();

  // Of all passes so far: prompts' tokens (an answer that was put off counts as a prompt when it is computed again),
  // and those that were chosen one after another (an answer's first comes with its prompt). A pass's time is shared by
  // rows.
  struct Speed {
    int64_t prompt_tokens = 0, answer_tokens = 0;
    double prompt_seconds = 0, answer_seconds = 0;
  };
  const Speed& speed() const { return speed_; }
  int64_t preemptions() const { return preemptions_; }
  struct Load {
    int64_t running = 0, waiting = 0;
    int64_t prefix_queries = 0, prefix_hits = 0;  // tokens of prompts that were looked for and found, of all so far
  };
  Load load() const;
  const PrefixCache& prefixes() const { return prefixes_; }

  // What the largest pass takes from the decoder's scratch, for plans.
  static void rehearse(Decoder& decoder, const BatcherSettings& settings);

 private:
  struct Job {
    uint64_t number;
    Request request;
    std::vector<int32_t> ids;  // the prompt and its answer so far; all but the last ones are in the cache
    PrefixCache::Sequence cache;
    int64_t scored = 0;               // tokens of the prompt whose log-probabilities are known
    std::vector<Chosen> scores = {};  // of this pass
    int64_t answered() const { return static_cast<int64_t>(ids.size() - request.ids.size()); }
    int64_t pending() const { return static_cast<int64_t>(ids.size()) - cache.tokens; }
    bool decodes() const { return pending() == 1 && answered() > 0; }
    bool only_scored() const { return request.max_tokens == 0; }
    std::string weights() const { return fmt::format("{} {}", request.slot, request.weights); }
  };
  struct Pass {
    std::vector<Decoder::Input> inputs;
    std::vector<Job*> jobs;  // of the inputs, until they are sorted
    std::vector<Job*> choosing;
    int64_t prompt_rows = 0, answer_rows = 0;
    int64_t rows() const { return prompt_rows + answer_rows; }
  };

  int64_t longest() const;
  std::string why_not(const Request& request) const;  // empty: it can be answered
  void add_decodes(Pass& pass);
  bool add_chunks(Pass& pass, Job& job);  // false: the pass has no room for all of it
  void admit();
  bool shares_with_a_running_prompt(const Job& job) const;
  void preempt_youngest();
  void add(Pass& pass, Job& job, int64_t tokens);
  void score(Job& job, Decoder::Input& input);
  void finish_prompts(const Pass& pass);
  bool take(Job& job, const Chosen& chosen);  // false: the job has ended

  Decoder& decoder_;
  BatcherSettings settings_;
  PrefixCache prefixes_;
  int64_t prefix_queries_ = 0, prefix_hits_ = 0;
  uint64_t submitted_ = 0;
  std::deque<std::unique_ptr<Job>> waiting_;   // in order of arrival, all of them behind those that run
  std::vector<std::unique_ptr<Job>> running_;  // in order of arrival
  std::vector<Event> refused_, events_;
  Speed speed_;
  int64_t preemptions_ = 0;
};

}  // namespace drover
