// A list of requests answered on a batcher, and their answers put together again in the order of the list.
#pragma once
#include <functional>
#include <optional>

#include "model/generation/batcher.h"

namespace drover {

struct Answer {
  std::vector<int32_t> ids;    // without the stop token
  std::vector<Chosen> tokens;  // the same with what Sampling::logprobs asked for
  std::optional<Finish> finish;
  std::optional<Error> error;  // one of the two where the answer is complete
  bool complete() const { return finish || error; }
};

// What the caller has to say while the answers grow; each may be empty. Every rank gives the same answers.
struct AnswerHooks {
  std::function<void(size_t index, const Answer&)> known;  // this answer and all before it are complete
  std::function<bool(size_t index, const Answer&)> stops;  // after a token: true ends the answer here
  std::function<bool()> gives_up;                          // before a pass: true leaves the rest unanswered
};

// The batcher is idle before and after.
std::vector<Answer> answer_all(Batcher& batcher, std::vector<Request> requests, const AnswerHooks& hooks = {});

}  // namespace drover
