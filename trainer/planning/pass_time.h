// How long a pass of generation takes: the decoder's real pass on Count, at the rates of a machine.
#pragma once
#include <memory>
#include <vector>

#include "model/generation/decoder.h"
#include "trainer/engine/replica.h"
#include "trainer/planning/step_record.h"

namespace drover {

// What a pass computes: a chunk of a prompt, and a token each of several answers.
struct PlannedPass {
  int64_t prompt_tokens = 0, prompt_context = 0;  // context: tokens that are in the cache already
  int64_t answers = 0, answer_context = 0;        // of each
  bool scored = false;                            // each token of the prompt gets its log-probability, and none follows
};

// With the replica's own adapter, where the settings have one.
class PassTimes {
 public:
  // `most`: answers at once, and the tokens of the longest sequence.
  PassTimes(const ReplicaSettings& settings, const BackendTraits& traits, const MeshShape& shape, const Rates& rates,
            int64_t most_answers, int64_t longest);
  ~PassTimes();
  double seconds(const PlannedPass& pass);  // through all stages, one after the other

  // Until the first token of an answer to a prompt, in passes of `pass_rows` tokens; and what each of the following
  // ones takes, in the mean over `answer_tokens`.
  double first_token_seconds(int64_t prompt_tokens, int64_t pass_rows);
  double token_seconds(int64_t prompt_tokens, int64_t answer_tokens);
  // Until every token of a document has its log-probability, in such passes.
  double scoring_seconds(int64_t tokens, int64_t pass_rows);
  // So many equal requests, of which `at_once` are answered together: their prompts one after the other, then passes
  // of a token of each; those that remain in the end share passes of their own.
  double requests_seconds(int64_t requests, int64_t prompt_tokens, int64_t answer_tokens, int64_t at_once);

 private:
  struct Counted;
  std::vector<std::unique_ptr<Counted>> stages_;
};

}  // namespace drover
