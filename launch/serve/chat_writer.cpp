// Answers of /v1/chat/completions.
#include <iterator>

#include "launch/serve/answer_stream.h"
#include "launch/serve/answer_writer.h"

namespace drover {

namespace {

using namespace openai;

class ChatWriter : public AnswerWriter {
 public:
  ChatWriter(WriterParts parts, const ChatRequest& request)
      : stream_(std::move(parts.call)),
        tokenizer_(parts.tokenizer),
        head_(std::move(parts.head)),
        streams_(parts.stream),
        may_call_(request.may_call()),
        most_others_(request.options.prompt_logprobs.value_or(0)) {
    const bool logprobs = request.options.sampling.logprobs.has_value();
    for (size_t i = 0; i < parts.answers; ++i) {
      const ToolCallParser::Settings calls{.id = fmt::format("{}-{}", head_.head.id, i),
                                           .several = request.parallel_tool_calls};
      answers_.push_back({.choice = {.index = static_cast<int64_t>(i), .content = {}}, .calls = ToolCallParser(calls)});
      if (logprobs) answers_.back().choice.logprobs.emplace();
    }
  }

  void prompt(size_t answer, std::span<const PromptToken> tokens) override {
    if (answer == 0) prompt_logprobs_ = openai::prompt_logprobs(tokenizer_, tokens, most_others_);
  }

  bool add(size_t answer, AnswerText::Piece piece) override {
    One& one = answers_[answer];
    if (!may_call_) {
      put(one, std::move(piece.text), {}, std::move(piece.entries));
      return true;
    }
    ToolCallParser::Piece parsed = one.calls.push(piece.text);
    const bool ended = parsed.ended;
    put(one, std::move(parsed.content), std::move(parsed.calls), std::move(piece.entries));
    return !ended;
  }

  FinishReason end(size_t answer, AnswerText::Piece last, bool stopped) override {
    One& one = answers_[answer];
    add(answer, std::move(last));
    if (may_call_) {
      ToolCallParser::Piece parsed = one.calls.finish();
      put(one, std::move(parsed.content), std::move(parsed.calls), {});
    }
    one.choice.finish = finish_reason(stopped, one.calls.calls());
    start(one);
    if (streams_) stream_.event(chat_events(head_, {.index = one.choice.index, .finish = one.choice.finish}));
    return one.choice.finish;
  }

  void close(const Usage& usage) override {
    if (streams_) {
      if (head_.usage) stream_.event(usage_event(head_, AnswerKind::chat, usage));
      stream_.event(kDone);
      return stream_.end();
    }
    std::vector<ChatChoice> choices;
    for (One& one : answers_) choices.push_back(std::move(one.choice));
    stream_.body(chat_completion(head_.head, choices, usage, prompt_logprobs_));
  }

  void fail(const ApiError& error) override { stream_.fail(error); }

 private:
  struct One {
    ChatChoice choice;
    ToolCallParser calls;
    bool started = false;
  };

  void start(One& one) {
    if (streams_ && !std::exchange(one.started, true)) stream_.event(chat_start(head_, one.choice.index));
  }

  void put(One& one, std::string content, std::vector<ToolCall> calls, std::vector<TokenEntry> entries) {
    start(one);
    if (content.empty() && calls.empty() && entries.empty()) return;
    if (streams_) {
      ChatPiece piece{.index = one.choice.index, .content = std::move(content), .calls = std::move(calls)};
      if (one.choice.logprobs) piece.logprobs = std::move(entries);
      return stream_.event(chat_events(head_, piece));
    }
    one.choice.content += content;
    std::ranges::move(calls, std::back_inserter(one.choice.calls));
    if (one.choice.logprobs) std::ranges::move(entries, std::back_inserter(*one.choice.logprobs));
  }

  AnswerStream stream_;
  const Tokenizer& tokenizer_;
  StreamHead head_;
  bool streams_, may_call_;
  int64_t most_others_;  // with each token of the prompt
  std::vector<One> answers_;
  std::optional<OrderedJson> prompt_logprobs_;
};

}  // namespace

std::unique_ptr<AnswerWriter> make_chat_writer(WriterParts parts, const ChatRequest& request) {
  return std::make_unique<ChatWriter>(std::move(parts), request);
}

}  // namespace drover
