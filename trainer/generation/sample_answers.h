// eval.prompts: questions that the model answers while it is trained, so that people can read what changes.
#pragma once
#include <string>
#include <vector>

#include "data/prompts.h"
#include "trainer/engine/evaluation.h"

namespace drover {

class Tokenizer;

struct SamplePrompt {
  Prompt prompt;
  std::vector<int32_t> ids;  // as the model is asked
};

inline constexpr int64_t kSampleAnswerTokens = 128;  // the longest answer
inline constexpr int64_t kSampleSequences = 8;       // answered at once by one dp replica

// Takes from the replica's scratch what answering takes, for plans.
void rehearse_sample_answers(Replica& replica, const AnswerCapacity& capacity);

// Collective; greedy. Every dp replica answers its share with its own weights, in its scratch. On rank 0: a row for
// every prompt, in order. `give_up` is asked by each replica for itself: where one gave up, its rows are empty.
std::vector<std::string> sample_answers(Replica& replica, const AnswerCapacity& capacity,
                                        const std::vector<SamplePrompt>& prompts, const Tokenizer& tokenizer,
                                        const std::vector<int32_t>& stop_ids, const GiveUp& give_up);

}  // namespace drover
