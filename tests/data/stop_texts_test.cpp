// Texts that end an answer: over tokens, within one, one a prefix of another, half characters.
#include "data/stop_texts.h"

#include <gtest/gtest.h>

#include "tests/base/scratch_directory.h"
#include "tests/data/tokenizer_files.h"

namespace drover {
namespace {

class Stops : public testing::Test {
 protected:
  static Tokenizer opened(const ScratchDirectory& directory) {
    write_text(directory / "tokenizer.json", small_tokenizer({"<|end|>"}).dump());
    return Tokenizer::open(directory.path());
  }
  ScratchDirectory directory;
  const Tokenizer tokenizer = opened(directory);  // ids below 256 are bytes, 257 "the", 300 special

  // The text that is kept, and after how many tokens the answer ended; all of them where nothing was found.
  std::pair<std::string, size_t> ended(const std::vector<int32_t>& ids, const std::vector<std::string>& texts) {
    StopTexts stops(tokenizer, texts);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (stops.push(ids[i])) return {stops.text(), i + 1};
      EXPECT_FALSE(stops.found());
    }
    return {stops.text(), ids.size()};
  }
};

using Ended = std::pair<std::string, size_t>;

TEST_F(Stops, SpanTokensAndLieWithinThem) {
  EXPECT_EQ(ended({'a', 'b', 257, 'c'}, {"bt"}), Ended("a", 3));
  EXPECT_EQ(ended({'a', 257, 'c'}, {"h"}), Ended("at", 2));
  EXPECT_EQ(ended({'a', 'b', 'a', 'b', 'c', 'd'}, {"abc"}), Ended("ab", 5));
  EXPECT_EQ(ended({'x', 'y'}, {"xyz"}), Ended("xy", 2));
  EXPECT_EQ(ended({257}, {"the"}), Ended("", 1));
}

TEST_F(Stops, FirstInTheTextCounts) {
  EXPECT_EQ(ended({'a', 257, 'c'}, {"e", "th"}), Ended("a", 2));
  EXPECT_EQ(ended({'a', 'X', '\n'}, {"X\n", "X"}), Ended("a", 2));
  EXPECT_EQ(ended({'a', 'X', '\n', 'b'}, {"X\n", "q"}), Ended("a", 3));
}

TEST_F(Stops, CharactersAreWholeAndSpecialTokensAreNotText) {
  EXPECT_EQ(ended({'a', 0xE2, 0x82, 0xAC, 'b'}, {"\u20AC"}), Ended("a", 4));
  EXPECT_EQ(ended({'a', 300, 'b'}, {"ab"}), Ended("", 3));
  EXPECT_EQ(ended({300, 'b'}, {"<|end|>"}), Ended("b", 2));
}

}  // namespace
}  // namespace drover
