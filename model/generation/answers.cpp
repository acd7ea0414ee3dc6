#include "model/generation/answers.h"

namespace drover {

std::vector<Answer> answer_all(Batcher& batcher, std::vector<Request> requests, const AnswerHooks& hooks) {
  require(batcher.idle(), "a list is answered by itself");
  std::vector<Answer> answers(requests.size());
  std::vector<uint64_t> numbers;
  for (Request& request : requests) numbers.push_back(batcher.submit(std::move(request)));
  size_t reported = 0;
  while (!batcher.idle()) {
    if (hooks.gives_up && hooks.gives_up()) {
      for (const uint64_t number : numbers) batcher.cancel(number);
      break;
    }
    for (const Event& event : batcher.step()) {
      const size_t index = static_cast<size_t>(event.request - numbers.front());
      Answer& answer = answers[index];
      if (answer.complete()) continue;  // it was stopped at a token of this very pass
      if (const auto* finish = std::get_if<Finish>(&event.what)) answer.finish = *finish;
      if (const auto* error = std::get_if<Error>(&event.what)) answer.error = *error;
      if (const auto* token = std::get_if<Chosen>(&event.what)) {
        answer.ids.push_back(token->id);
        answer.tokens.push_back(*token);
        if (!hooks.stops || !hooks.stops(index, answer)) continue;
        answer.finish = Finish::stop;
        batcher.cancel(event.request);
      }
    }
    for (; reported < answers.size() && answers[reported].complete(); ++reported) {
      if (hooks.known) hooks.known(reported, answers[reported]);
    }
  }
  return answers;
}

}  // namespace drover
