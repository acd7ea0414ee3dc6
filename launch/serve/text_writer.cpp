// Answers of /v1/completions.
#include <iterator>

#include "launch/serve/answer_stream.h"
#include "launch/serve/answer_writer.h"

namespace drover {

namespace {

using namespace openai;

class TextWriter : public AnswerWriter {
 public:
  TextWriter(WriterParts parts, const CompletionRequest& request, std::vector<std::vector<int32_t>> prompts)
      : stream_(std::move(parts.call)),
        tokenizer_(parts.tokenizer),
        head_(std::move(parts.head)),
        streams_(parts.stream),
        echo_(request.echo),
        options_(request.options),
        prompts_(std::move(prompts)) {
    for (size_t i = 0; i < parts.answers; ++i) {
      One& one = answers_.emplace_back();
      one.choice.index = static_cast<int64_t>(i);
      if (options_.sampling.logprobs) one.choice.logprobs.emplace();
    }
  }

  void prompt(size_t answer, std::span<const PromptToken> tokens) override {
    One& one = answers_[answer];
    if (options_.prompt_logprobs) {
      one.choice.prompt_logprobs = openai::prompt_logprobs(tokenizer_, tokens, *options_.prompt_logprobs);
    }
    if (echo_) echo(one, tokens);
  }

  bool add(size_t answer, AnswerText::Piece piece) override {
    One& one = answers_[answer];
    start(one);
    for (TokenEntry& entry : piece.entries) entry.text_offset += one.prompt_characters;
    put(one, std::move(piece.text), std::move(piece.entries));
    return true;
  }

  FinishReason end(size_t answer, AnswerText::Piece last, bool stopped) override {
    One& one = answers_[answer];
    add(answer, std::move(last));
    one.choice.finish = finish_reason(stopped, 0);
    if (streams_) stream_.event(text_event(head_, {.index = one.choice.index, .finish = one.choice.finish}));
    return one.choice.finish;
  }

  void close(const Usage& usage) override {
    if (streams_) {
      if (head_.usage) stream_.event(usage_event(head_, AnswerKind::text, usage));
      stream_.event(kDone);
      return stream_.end();
    }
    std::vector<TextChoice> choices;
    for (One& one : answers_) choices.push_back(std::move(one.choice));
    stream_.body(text_completion(head_.head, choices, usage));
  }

  void fail(const ApiError& error) override { stream_.fail(error); }

 private:
  struct One {
    TextChoice choice;
    bool started = false;
    int64_t prompt_characters = 0;  // that stand in front of the answer
  };

  // An echo without log-probabilities needs none of the engine's.
  void start(One& one) {
    if (std::exchange(one.started, true) || !echo_) return;
    std::vector<PromptToken> tokens;
    for (const int32_t id : prompts_[static_cast<size_t>(one.choice.index / options_.n)]) tokens.push_back({.id = id});
    echo(one, tokens);
  }

  void echo(One& one, std::span<const PromptToken> tokens) {
    one.started = true;
    PromptText text =
        prompt_text(tokenizer_, tokens, options_.sampling.logprobs.value_or(0), options_.skip_special_tokens);
    one.prompt_characters = characters(text.text);
    put(one, std::move(text.text), std::move(text.entries));
  }

  void put(One& one, std::string text, std::vector<TokenEntry> entries) {
    if (text.empty() && entries.empty()) return;
    if (streams_) {
      TextPiece piece{.index = one.choice.index, .text = std::move(text)};
      if (one.choice.logprobs) piece.logprobs = std::move(entries);
      return stream_.event(text_event(head_, piece));
    }
    one.choice.text += text;
    if (one.choice.logprobs) std::ranges::move(entries, std::back_inserter(*one.choice.logprobs));
  }

  AnswerStream stream_;
  const Tokenizer& tokenizer_;
  StreamHead head_;
  bool streams_, echo_;
  AnswerOptions options_;
  std::vector<std::vector<int32_t>> prompts_;
  std::vector<One> answers_;
};

}  // namespace

std::unique_ptr<AnswerWriter> make_text_writer(WriterParts parts, const CompletionRequest& request,
                                               std::vector<std::vector<int32_t>> prompts) {
  return std::make_unique<TextWriter>(std::move(parts), request, std::move(prompts));
}

}  // namespace drover
