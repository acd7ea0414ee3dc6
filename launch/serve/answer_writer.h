// What a client gets while its answers grow and when they have ended: events of a stream, or one body. On the loop's
// thread.
#pragma once
#include <memory>
#include <span>

#include "launch/openai/answer_text.h"
#include "launch/openai/api_error.h"
#include "launch/openai/requests.h"
#include "launch/openai/responses.h"
#include "launch/serve/serving.h"

namespace drover {

class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;
  // Before the first piece: the answer's prompt, where its log-probabilities were asked for.
  virtual void prompt(size_t answer, std::span<const openai::PromptToken> tokens) = 0;
  virtual bool add(size_t answer, openai::AnswerText::Piece piece) = 0;  // false: the answer ends with it
  // The answer's last piece; `stopped`: by a stop text or token, else by its length. Returns how it ended.
  virtual openai::FinishReason end(size_t answer, openai::AnswerText::Piece last, bool stopped) = 0;
  virtual void close(const openai::Usage& usage) = 0;  // all answers have ended
  virtual void fail(const openai::ApiError& error) = 0;
};

// What both kinds need.
struct WriterParts {
  Call call;
  const Tokenizer& tokenizer;
  openai::StreamHead head;
  bool stream = false;
  size_t answers = 1;
};

std::unique_ptr<AnswerWriter> make_chat_writer(WriterParts parts, const openai::ChatRequest& request);
// `prompts`: their ids, each with `options.n` answers.
std::unique_ptr<AnswerWriter> make_text_writer(WriterParts parts, const openai::CompletionRequest& request,
                                               std::vector<std::vector<int32_t>> prompts);

}  // namespace drover
