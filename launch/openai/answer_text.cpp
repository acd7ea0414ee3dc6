#include "launch/openai/answer_text.h"

namespace drover::openai {

namespace {

ScoredToken scored(const Tokenizer& tokenizer, int32_t id, float logprob) {
  return {id, tokenizer.raw_bytes(id), logprob};
}

std::vector<ScoredToken> all_scored(const Tokenizer& tokenizer, std::span<const Chosen::Likely> top) {
  std::vector<ScoredToken> out;
  for (const Chosen::Likely& likely : top) out.push_back(scored(tokenizer, likely.id, likely.logprob));
  return out;
}

}  // namespace

int64_t characters(std::string_view text) {
  return std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

AnswerText::AnswerText(const Tokenizer& tokenizer, const AnswerTextSettings& settings)
    : tokenizer_(tokenizer), settings_(settings), stream_(tokenizer, settings.skip_special), stops_(settings.stop) {}

AnswerText::Piece AnswerText::push(const Chosen& chosen) {
  if (stops_.found()) return {.stopped = true};
  await_text(chosen);
  return piece(stream_.push(chosen.id), false);
}

void AnswerText::stop_at(const Chosen& chosen) { await_text(chosen); }

void AnswerText::await_text(const Chosen& chosen) {
  if (!settings_.logprobs) return;
  waiting_.push_back({{.token = scored(tokenizer_, chosen.id, chosen.logprob),
                       .top = all_scored(tokenizer_, chosen.top),
                       .text_offset = characters_},
                      decoded_});
}

AnswerText::Piece AnswerText::finish() {
  if (stops_.found()) return {.stopped = true};
  return piece(stream_.finish(), true);
}

AnswerText::Piece AnswerText::piece(std::string text, bool last) {
  decoded_ += text.size();
  characters_ += characters(text);
  Piece out{.text = stops_.push(text)};
  out.stopped = stops_.found();
  if (last) out.text += stops_.finish();
  shown_ += out.text.size();
  const bool all = last && !out.stopped;
  while (!waiting_.empty() && (all || waiting_.front().begin < shown_)) {
    out.entries.push_back(std::move(waiting_.front().entry));
    waiting_.pop_front();
  }
  return out;
}

PromptText prompt_text(const Tokenizer& tokenizer, std::span<const PromptToken> prompt, int64_t top,
                       bool skip_special) {
  PromptText out;
  StreamDecoder stream(tokenizer, skip_special);
  int64_t offset = 0;
  for (const PromptToken& token : prompt) {
    out.entries.push_back({.token = scored(tokenizer, token.id, token.logprob.value_or(0)),
                           .scored = token.logprob.has_value(),
                           .top = all_scored(tokenizer, token.first(top)),
                           .text_offset = offset});
    const std::string text = stream.push(token.id);
    offset += characters(text);
    out.text += text;
  }
  out.text += stream.finish();
  return out;
}

}  // namespace drover::openai
