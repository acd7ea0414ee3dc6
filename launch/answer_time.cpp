#include "launch/answer_time.h"

#include "kernels/base/error.h"
#include "model/generation/batcher.h"
#include "trainer/planning/pass_time.h"
#include "trainer/setup/engine_settings.h"

namespace drover {

AnswerTime answer_time(const AnswerQuestion& q, const PlannedMachine& machine) {
  const int64_t longest = q.prompt_tokens + q.answer_tokens;
  if (longest > q.model.max_positions) {
    fail(Fault::usage, "--prompt-tokens {} and --answer-tokens {} are more than the {} positions of {}",
         q.prompt_tokens, q.answer_tokens, q.model.max_positions, q.model_name);
  }
  ReplicaSettings settings;
  settings.model = q.model;
  settings.partition = {{0, q.model.layers}};
  settings.dtype = DType::bf16;
  settings.weights = weights_as(q.weights);
  settings.max_positions = longest;
  settings.train = false;
  PassTimes passes(settings, traits_of(DeviceKind::cpu), {}, machine.rates, 1, longest);
  AnswerTime time{.first_token_seconds = passes.first_token_seconds(q.prompt_tokens, BatcherSettings{}.pass_rows)};
  if (q.answer_tokens > 1) time.tokens_per_second = 1 / passes.token_seconds(q.prompt_tokens, q.answer_tokens);
  return time;
}

std::string print_answer(const AnswerQuestion& q, const AnswerTime& time, const PlannedMachine& machine) {
  std::string text = fmt::format("{}, weights {}, at {}:\none request alone: the first token after {:.0f} ms",
                                 q.model_name, word_of(q.weights), machine.name, 1e3 * time.first_token_seconds);
  if (time.tokens_per_second > 0) text += fmt::format(", then {:.1f} tokens/s", time.tokens_per_second);
  return text + '\n';
}

nlohmann::ordered_json answer_json(const AnswerTime& time, const PlannedMachine& machine) {
  return {{"calibrated", machine.calibrated},
          {"rates", machine.name},
          {"first_token_seconds", time.first_token_seconds},
          {"tokens_per_second", time.tokens_per_second}};
}

}  // namespace drover
