#include "trainer/planning/pass_time.h"

#include <algorithm>

#include "kernels/count/count.h"
#include "model/generation/batcher.h"
#include "trainer/engine/plan.h"

namespace drover {

// A stage with a cache that holds whatever is asked for.
struct PassTimes::Counted {
  Counted(const ReplicaSettings& settings, const BackendTraits& traits, const MeshShape& shape,
          const MeshPosition& position, const Rates& rates, int64_t sequences, int64_t longest)
      : recorder(rates, {}),
        backend(std::make_shared<CountBackend>(traits)),
        nothing(settings.stored),
        replica(settings, {backend, make_count_mesh(shape, position, false, &recorder)}, nothing, kPlenty),
        pool(replica.stage, replica.arenas.cache, sequences * KvPool::blocks_for(longest)),
        decoder(replica.stage, replica.device.mesh, *backend, pool, replica.arenas.scratch),
        cached(static_cast<size_t>(sequences)),
        slot(settings.adapter.empty() ? kBaseModel : kOwnSlot) {
    for (CachedSequence& s : cached) require(pool.reserve(s, longest), "the pool has room for all sequences");
    backend->observe(&recorder);
    recorder.take();
  }

  double seconds(const PlannedPass& pass) {
    const std::vector<int32_t> prompt(static_cast<size_t>(pass.prompt_tokens), 0), token(1, 0);
    const Sampling greedy;
    std::vector<Decoder::Input> inputs;
    std::vector<Chosen> scores;
    size_t next = 0;
    const auto add = [&](std::span<const int32_t> ids, int64_t context) {
      CachedSequence& sequence = cached[next++];
      sequence.tokens = context;
      inputs.push_back({.sequence = &sequence, .ids = ids, .sampling = &greedy, .slot = slot});
    };
    if (pass.prompt_tokens > 0) add(prompt, pass.prompt_context);
    if (pass.scored) {
      inputs.front().sampling = nullptr;
      inputs.front().scored = {.tokens = prompt, .scores = &scores};
    }
    for (int64_t i = 0; i < pass.answers; ++i) add(token, pass.answer_context);
    decoder.append(inputs);
    return recorder.take().outside;
  }

  StepRecorder recorder;
  std::shared_ptr<CountBackend> backend;
  NoWeights nothing;
  Replica replica;
  KvPool pool;
  Decoder decoder;
  std::vector<CachedSequence> cached;
  int slot;
};

PassTimes::PassTimes(const ReplicaSettings& settings, const BackendTraits& traits, const MeshShape& shape,
                     const Rates& rates, int64_t most_answers, int64_t longest) {
  for (int pp = 0; pp < shape.pp(); ++pp) {
    const MeshPosition position{{Axis::pp, pp}};
    stages_.push_back(
        std::make_unique<Counted>(settings, traits, shape, position, rates, most_answers + 1, longest + 1));
  }
}

PassTimes::~PassTimes() = default;

double PassTimes::seconds(const PlannedPass& pass) {
  double seconds = 0;
  for (const auto& stage : stages_) seconds += stage->seconds(pass);
  return seconds;
}

double PassTimes::first_token_seconds(int64_t prompt_tokens, int64_t pass_rows) {
  double all = 0;
  for (int64_t done = 0; done < prompt_tokens; done += pass_rows)
    all += seconds({.prompt_tokens = std::min(pass_rows, prompt_tokens - done), .prompt_context = done});
  return all;
}

double PassTimes::scoring_seconds(int64_t tokens, int64_t pass_rows) {
  double all = 0;
  for (int64_t done = 0; done < tokens; done += pass_rows)
    all += seconds({.prompt_tokens = std::min(pass_rows, tokens - done), .prompt_context = done, .scored = true});
  return all;
}

double PassTimes::token_seconds(int64_t prompt_tokens, int64_t answer_tokens) {
  constexpr int64_t kSampled = 5;
  double all = 0;
  const int64_t samples = std::clamp<int64_t>(answer_tokens, 1, kSampled);
  for (int64_t i = 0; i < samples; ++i)
    all += seconds({.answers = 1, .answer_context = prompt_tokens + (2 * i + 1) * answer_tokens / (2 * samples)});
  return all / static_cast<double>(samples);
}

double PassTimes::requests_seconds(int64_t requests, int64_t prompt_tokens, int64_t answer_tokens, int64_t at_once) {
  const double prompts =
      static_cast<double>(requests) * first_token_seconds(prompt_tokens, BatcherSettings{}.pass_rows);
  const auto pass = [&](int64_t answers) {
    return answers > 0 ? seconds({.answers = answers, .answer_context = prompt_tokens + answer_tokens / 2}) : 0;
  };
  const int64_t full = requests / at_once, rest = requests % at_once;
  const double rounds = (full > 0 ? static_cast<double>(full) * pass(at_once) : 0) + pass(rest);
  return prompts + static_cast<double>(answer_tokens - 1) * rounds;  // the first token comes with the prompt
}

}  // namespace drover
