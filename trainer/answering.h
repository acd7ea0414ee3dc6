// Questions answered token by token, several at once, on a decoder. All ranks that share the model make the same calls.
#pragma once
#include <functional>
#include <optional>
#include <span>

#include "data/prompts.h"
#include "model/decoder.h"
#include "model/sampling.h"

namespace drover {

// The ids of a prompt: through the chat template, or without one its plain text (behind a BOS where the tokenizer adds it). 65 naming the prompt's place
// for one without tokens, or that the template does not take.
std::vector<int32_t> prompt_ids(const Prompt& prompt, const Tokenizer& tokenizer, const std::optional<ChatTemplate>& chat, const std::string& date);

class Answering {
 public:
  Answering(Decoder& decoder, std::vector<int32_t> stop_ids) : decoder_(decoder), stop_ids_(std::move(stop_ids)) {}

  struct Answer {
    std::vector<int32_t> ids;  // without the stop token
    bool stopped = false;      // false: the limit was reached
  };
  struct Question {
    std::vector<int32_t> ids;
    uint64_t number = 0;  // names its random draws
  };
  // At most as many questions as the decoder has sequences. 65 for a prompt without tokens, or longer than the decoder's capacity; 81 where the logits
  // are not finite. `known`, where given, gets every answer as soon as it and all before it are complete.
  using Known = std::function<void(size_t question, const Answer& answer)>;
  std::vector<Answer> answer(std::span<const Question> questions, const Sampling& sampling, int64_t max_tokens, const Known& known = {});

  // Of all calls so far: the prompts' tokens, and those that were chosen one after another (an answer's first comes with its prompt).
  struct Speed {
    int64_t prompt_tokens = 0, answer_tokens = 0;
    double prompt_seconds = 0, answer_seconds = 0;
  };
  const Speed& speed() const { return speed_; }

  // What the largest passes of `answer` take from the decoder's arenas, for plans.
  static void rehearse(Decoder& decoder, int64_t sequences);

 private:
  Decoder& decoder_;
  std::vector<int32_t> stop_ids_;
  Speed speed_;
};

}  // namespace drover
