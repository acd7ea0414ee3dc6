#include "trainer/answering.h"

#include <algorithm>
#include <chrono>

#include "kernels/base/error.h"

namespace drover {

namespace {

constexpr int64_t kPassTokens = 512;  // of a prompt at once

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

}  // namespace

std::vector<int32_t> prompt_ids(const Prompt& prompt, const Tokenizer& tokenizer, const std::optional<ChatTemplate>& chat, const std::string& date) {
  if (chat) {
    try {
      return render(prompt.dialog, *chat, tokenizer, {.date = date, .add_generation_prompt = true}).ids;
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("{}: {}", prompt.where, error.what()));
    }
  }
  std::vector<int32_t> ids;
  if (tokenizer.adds_bos() && tokenizer.bos()) ids.push_back(*tokenizer.bos());
  std::string text;
  for (const Message& m : prompt.dialog) text += m.content;
  const std::vector<int32_t> words = tokenizer.encode(text);
  ids.insert(ids.end(), words.begin(), words.end());
  if (ids.empty()) fail(Exit::bad_data, "{}: the prompt has no tokens; give it some text", prompt.where);
  return ids;
}

void Answering::rehearse(Decoder& decoder, int64_t sequences) {
  const Sampling drawn{.greedy = false};
  const Decoder::Input prompt[] = {{0, std::vector<int32_t>(static_cast<size_t>(std::min(kPassTokens, decoder.capacity_tokens())))}};
  const Draw draw[] = {{}};
  decoder.append_and_choose(prompt, drawn, draw);
  decoder.clear(0);
  std::vector<Decoder::Input> together;
  for (int64_t i = 0; i < sequences; ++i) together.push_back({i, {0}});
  decoder.append_and_choose(together, drawn, std::vector<Draw>(together.size()));
}

std::vector<Answering::Answer> Answering::answer(std::span<const Question> questions, const Sampling& sampling, int64_t max_tokens, const Known& known) {
  struct State {
    int32_t next = 0;
    bool open = true;
  };
  std::vector<State> states(questions.size());
  std::vector<Answer> answers(questions.size());
  const auto prompts_begin = Clock::now();
  for (size_t q = 0; q < questions.size(); ++q) {
    const std::vector<int32_t>& ids = questions[q].ids;
    if (ids.empty()) fail(Exit::bad_data, "a prompt without tokens cannot be answered; give it some text");
    if (static_cast<int64_t>(ids.size()) >= decoder_.capacity_tokens()) {
      fail(Exit::bad_data, "the prompt has {} tokens; prompt and answer together may have {}", ids.size(), decoder_.capacity_tokens());
    }
    decoder_.clear(static_cast<int64_t>(q));
    for (size_t begin = 0; begin < ids.size(); begin += kPassTokens) {
      const size_t end = std::min(ids.size(), begin + kPassTokens);
      const Decoder::Input part[] = {{static_cast<int64_t>(q), {ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.begin() + static_cast<std::ptrdiff_t>(end)}}};
      const Draw draw[] = {{questions[q].number, 0}};
      states[q].next = decoder_.append_and_choose(part, sampling, draw).front();  // after the last part: the answer's first token
    }
    speed_.prompt_tokens += static_cast<int64_t>(ids.size());
  }
  speed_.prompt_seconds += seconds_since(prompts_begin);
  size_t told = 0;
  const auto tell = [&] {
    for (; told < questions.size() && !states[told].open; ++told) {
      if (known) known(told, answers[told]);
    }
  };
  for (int64_t index = 0; index < max_tokens; ++index) {
    std::vector<Decoder::Input> next;
    std::vector<Draw> draws;
    for (size_t q = 0; q < questions.size(); ++q) {
      if (!states[q].open) continue;
      const int32_t id = states[q].next;
      if (std::find(stop_ids_.begin(), stop_ids_.end(), id) != stop_ids_.end()) {
        answers[q].stopped = true;
        states[q].open = false;
        continue;
      }
      answers[q].ids.push_back(id);
      if (index + 1 == max_tokens || decoder_.length(static_cast<int64_t>(q)) == decoder_.capacity_tokens()) {
        states[q].open = false;
        continue;
      }
      next.push_back({static_cast<int64_t>(q), {id}});
      draws.push_back({questions[q].number, static_cast<uint64_t>(index) + 1});
    }
    tell();
    if (next.empty()) break;
    const auto pass_begin = Clock::now();
    const std::vector<int32_t> ids = decoder_.append_and_choose(next, sampling, draws);
    speed_.answer_seconds += seconds_since(pass_begin);
    speed_.answer_tokens += static_cast<int64_t>(ids.size());
    for (size_t i = 0; i < next.size(); ++i) states[static_cast<size_t>(next[i].sequence)].next = ids[i];
  }
  return answers;
}

}  // namespace drover
