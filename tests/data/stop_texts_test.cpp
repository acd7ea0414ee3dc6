// Texts that end an answer: over pieces, within one, one a prefix of another; against a plain search.
#include "data/stop_texts.h"

#include <gtest/gtest.h>

#include <random>

namespace drover {
namespace {

// What is shown of a text that comes in pieces, and the pieces that it took until a stop text was found; all of them
// where none was.
using Ended = std::pair<std::string, size_t>;

Ended ended(const std::vector<std::string>& pieces, const std::vector<std::string>& texts) {
  StopTexts stops(texts);
  std::string shown;
  for (size_t i = 0; i < pieces.size(); ++i) {
    shown += stops.push(pieces[i]);
    if (!stops.found()) continue;
    EXPECT_EQ(stops.push("more"), "");
    EXPECT_EQ(stops.finish(), "");
    return {shown, i + 1};
  }
  return {shown + stops.finish(), pieces.size()};
}

TEST(StopTexts, SpanPiecesAndLieWithinThem) {
  EXPECT_EQ(ended({"a", "b", "the", "c"}, {"bt"}), Ended("a", 3));
  EXPECT_EQ(ended({"a", "the", "c"}, {"h"}), Ended("at", 2));
  EXPECT_EQ(ended({"a", "b", "a", "b", "c", "d"}, {"abc"}), Ended("ab", 5));
  EXPECT_EQ(ended({"x", "y"}, {"xyz"}), Ended("xy", 2));
  EXPECT_EQ(ended({"the"}, {"the"}), Ended("", 1));
  EXPECT_EQ(ended({"a", "", "b"}, {"ab"}), Ended("", 3));
}

TEST(StopTexts, TheOneThatIsCompleteFirstCounts) {
  EXPECT_EQ(ended({"a", "the", "c"}, {"e", "th"}), Ended("a", 2));
  EXPECT_EQ(ended({"a", "X", "\n"}, {"X\n", "X"}), Ended("a", 2));
  EXPECT_EQ(ended({"a", "X\n"}, {"X\n", "X"}), Ended("a", 2));
  EXPECT_EQ(ended({"a", "X", "\n", "b"}, {"X\n", "q"}), Ended("a", 3));
  EXPECT_EQ(ended({"abcd"}, {"abcd", "bc"}), Ended("a", 1));
  EXPECT_EQ(ended({"abc"}, {"c", "bc"}), Ended("a", 1));
}

TEST(StopTexts, HoldOnlyWhatMayBeABeginning) {
  StopTexts stops({"abcab", "cd"});
  EXPECT_EQ(stops.push("xab"), "x");
  EXPECT_EQ(stops.push("c"), "");
  EXPECT_EQ(stops.push("a"), "");
  EXPECT_EQ(stops.push("c"), "abca");
  EXPECT_EQ(stops.push("x"), "cx");
  EXPECT_EQ(stops.push("ab"), "");
  EXPECT_EQ(stops.finish(), "ab");
}

std::string plain(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

TEST(StopTexts, AsAPlainSearchWhateverThePieces) {
  std::mt19937 random(1);
  const auto word = [&](size_t least, size_t most) {
    std::string text(least + random() % (most - least + 1), ' ');
    for (char& c : text) c = static_cast<char>('a' + random() % 3);
    return text;
  };
  size_t found = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string text = word(0, 30);
    std::vector<std::string> stops, pieces;
    for (size_t n = random() % 5; n > 0; --n) stops.push_back(word(1, 6));
    for (size_t at = 0; at < text.size();) {
      const size_t size = random() % 7;
      pieces.push_back(text.substr(at, size));
      at += size;
    }
    const std::string expected = plain(text, stops);
    EXPECT_EQ(ended(pieces, stops).first, expected) << text;
    found += expected != text ? 1 : 0;
  }
  EXPECT_GT(found, 5'000u);
  EXPECT_LT(found, 18'000u);
}

}  // namespace
}  // namespace drover
