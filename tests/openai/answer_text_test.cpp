// An answer's text in pieces: whole characters, cut at stop texts, entries that come with their text.
#include "launch/openai/answer_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "kernels/base/json.h"
#include "tests/data/tokenizer_files.h"

namespace drover::openai {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

struct Whole {
  std::string text;
  std::vector<TokenEntry> entries;
  bool stopped = false;
};

class AnswerTexts : public testing::Test {
 protected:
  ScratchDirectory directory;
  // ids below 256 are bytes, 257 "the", 258 " the", 300 special
  const Tokenizer tokenizer = open_with(directory, small_tokenizer({"<|end|>"}));

  Whole answered(const std::vector<int32_t>& ids, const AnswerTextSettings& settings) {
    AnswerText answer(tokenizer, settings);
    Whole whole;
    const auto add = [&](AnswerText::Piece piece) {
      whole.text += piece.text;
      EXPECT_TRUE(is_utf8(piece.text));
      for (TokenEntry& entry : piece.entries) whole.entries.push_back(std::move(entry));
      whole.stopped = piece.stopped;
    };
    for (size_t i = 0; i < ids.size() && !whole.stopped; ++i)
      add(answer.push({.id = ids[i], .logprob = -static_cast<float>(i), .top = {{ids[i], -1}, {5, -2}}}));
    if (!whole.stopped) add(answer.finish());
    return whole;
  }
  static std::vector<int32_t> bytes_of(const std::string& text) {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
};

std::vector<int32_t> ids_of(const std::vector<TokenEntry>& entries) {
  std::vector<int32_t> ids;
  for (const TokenEntry& entry : entries) ids.push_back(entry.token.id);
  return ids;
}

TEST_F(AnswerTexts, CharactersComeWhole) {
  const std::vector<std::string> texts{"Grüße aus München",
                                       "Où êtes-vous ?",
                                       "¿Qué tal, señor?",
                                       "नमस्ते दुनिया",
                                       "สวัสดีชาวโลก",
                                       "Perché no?",
                                       "Olá, coração",
                                       "Hello",
                                       "안녕하세요 세계",
                                       "مرحبا بالعالم",
                                       "👩‍👩‍👧‍👦 🇩🇪 😀",
                                       "日本語"};
  for (const std::string& text : texts) {
    const Whole whole = answered(bytes_of(text), {.logprobs = true});
    EXPECT_EQ(whole.text, text);
    std::string joined;
    for (const TokenEntry& entry : whole.entries) joined += entry.token.bytes;
    EXPECT_EQ(joined, text);
    EXPECT_EQ(whole.entries.back().text_offset, characters(text) - 1);
  }
  EXPECT_EQ(answered({'a', 0xE2, 0x82}, {}).text, "a\uFFFD");
}

TEST_F(AnswerTexts, EntriesComeWithTheirText) {
  AnswerText answer(tokenizer, {.stop = {"abc"}, .logprobs = true});
  EXPECT_THAT(ids_of(answer.push({'x'}).entries), ElementsAre('x'));
  EXPECT_THAT(answer.push({'a'}).entries, IsEmpty());
  EXPECT_THAT(answer.push({'b'}).entries, IsEmpty());
  const AnswerText::Piece piece = answer.push({257});  // the
  EXPECT_EQ(piece.text, "abthe");
  EXPECT_THAT(ids_of(piece.entries), ElementsAre('a', 'b', 257));
  EXPECT_THAT(answer.push({0xE2}).entries, IsEmpty());
  EXPECT_THAT(answer.push({0x82}).entries, IsEmpty());
  const AnswerText::Piece euro = answer.push({0xAC});
  EXPECT_EQ(euro.text, "€");
  ASSERT_THAT(ids_of(euro.entries), ElementsAre(0xE2, 0x82, 0xAC));
  for (const TokenEntry& entry : euro.entries) EXPECT_EQ(entry.text_offset, 6);
  EXPECT_EQ(euro.entries[1].token.bytes, "\x82");
}

TEST_F(AnswerTexts, StopTextsLeaveNothing) {
  const Whole cut = answered({'a', 258, 'b'}, {.stop = {"he"}, .logprobs = true});
  EXPECT_EQ(cut.text, "a t");
  EXPECT_TRUE(cut.stopped);
  EXPECT_THAT(ids_of(cut.entries), ElementsAre('a', 258));  // half of it is shown
  EXPECT_THAT(ids_of(answered({'a', 'X', '\n'}, {.stop = {"X\n"}, .logprobs = true}).entries), ElementsAre('a'));
  EXPECT_THAT(ids_of(answered({'a', 'X'}, {.stop = {"X\n"}, .logprobs = true}).entries), ElementsAre('a', 'X'));
  EXPECT_EQ(answered({'a', 0xE2, 0x82, 0xAC, 'b'}, {.stop = {"€"}}).text, "a");
  AnswerText answer(tokenizer, {.stop = {"a"}});
  EXPECT_TRUE(answer.push({'a'}).stopped);
  EXPECT_TRUE(answer.push({'b'}).stopped);
  EXPECT_EQ(answer.finish().text, "");
}

TEST_F(AnswerTexts, AStopTokenHasAnEntryAndNoText) {
  for (const bool logprobs : {true, false}) {
    AnswerText answer(tokenizer, {.logprobs = logprobs});
    answer.push({.id = 'a', .logprob = -1});
    answer.stop_at({.id = 300, .logprob = -2});
    const AnswerText::Piece last = answer.finish();
    EXPECT_EQ(last.text, "");
    ASSERT_EQ(last.entries.size(), logprobs ? 1u : 0u);
    if (!logprobs) continue;
    EXPECT_EQ(last.entries[0].token.bytes, "<|end|>");
    EXPECT_EQ(last.entries[0].token.logprob, -2);
    EXPECT_EQ(last.entries[0].text_offset, 1);
  }
}

TEST_F(AnswerTexts, SpecialTokens) {
  EXPECT_EQ(answered({'a', 300, 'b'}, {.stop = {"ab"}}).text, "");
  EXPECT_EQ(answered({'a', 300, 'b'}, {.stop = {"<|end|>"}}).text, "ab");
  EXPECT_EQ(answered({'a', 300, 'b'}, {.skip_special = false}).text, "a<|end|>b");
  const Whole whole = answered({'a', 300}, {.logprobs = true});
  EXPECT_THAT(ids_of(whole.entries), ElementsAre('a', 300));
  EXPECT_EQ(whole.entries[1].token.bytes, "<|end|>");
}

TEST_F(AnswerTexts, TheSameInPiecesAsAPlainCut) {
  std::mt19937 random(2);
  const std::vector<int32_t> some{'a', 'b', 257, 258, 256, 259, 300, 0xE2, 0x82, 0xAC, ' '};
  for (int i = 0; i < 3000; ++i) {
    std::vector<int32_t> ids(random() % 12);
    for (int32_t& id : ids) id = some[random() % some.size()];
    const Whole free = answered(ids, {.logprobs = true});
    EXPECT_EQ(ids_of(free.entries), ids);
    const std::string stop = std::vector<std::string>{"th", "€", "ab", "hea", " t"}[random() % 5];
    const Whole cut = answered(ids, {.stop = {stop}, .logprobs = true});
    EXPECT_EQ(cut.text, free.text.substr(0, free.text.find(stop)));
    const size_t found = free.text.find(stop);
    if (found == std::string::npos) {
      EXPECT_EQ(ids_of(cut.entries), ids);
    } else {
      const int64_t shown = characters(cut.text);
      for (const TokenEntry& entry : cut.entries) EXPECT_LT(entry.text_offset, shown);
      if (cut.entries.size() < ids.size()) {  // else the last one is shown in part
        EXPECT_GE(free.entries[cut.entries.size()].text_offset, shown);
      }
    }
  }
}

TEST_F(AnswerTexts, OfAPrompt) {
  const std::vector<PromptToken> prompt{
      {300}, {'a', -1.5F, 2, {{'b', -1}}}, {0xE2, -2.F}, {0x82, -3.F}, {0xAC, -4.F}, {'c', -5.F}};
  const PromptText text = prompt_text(tokenizer, prompt, 5);
  EXPECT_TRUE(prompt_text(tokenizer, prompt, 0).entries[1].top.empty());
  EXPECT_EQ(text.text, "a€c");
  ASSERT_EQ(text.entries.size(), 6u);
  EXPECT_FALSE(text.entries[0].scored);
  EXPECT_EQ(text.entries[1].token.logprob, -1.5F);
  EXPECT_EQ(text.entries[1].top[0].bytes, "b");
  EXPECT_EQ(text.entries[3].text_offset, 1);
  EXPECT_EQ(text.entries[5].text_offset, 2);
  EXPECT_EQ(prompt_text(tokenizer, prompt, 0, false).text, "<|end|>a€c");
}

}  // namespace
}  // namespace drover::openai
