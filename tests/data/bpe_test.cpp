// What a tokenizer is built of: byte-pair encoding against its definition, pre-tokenisation, UTF-8.
#include "data/bpe.h"

#include <optional>
#include <random>

#include "tests/data/tokenizer_files.h"

namespace drover {
namespace {

using Ids = std::vector<int32_t>;

std::vector<std::string> pieces(PreTokenizer::Kind kind, const std::string& text) {
  std::vector<std::string> out;
  for (std::string_view piece : PreTokenizer(kind).split(text)) out.emplace_back(piece);
  return out;
}

// The definition of BPE, in quadratic time.
Ids plain_bpe(const std::string& word, const std::vector<Bpe::Merge>& merges) {
  Ids ids(word.begin(), word.end());
  for (;;) {
    size_t best = merges.size(), where = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      for (size_t m = 0; m < best; ++m) {
        if (merges[m].left == ids[i] && merges[m].right == ids[i + 1]) best = m, where = i;
      }
    }
    if (best == merges.size()) return ids;
    ids[where] = merges[best].joined;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(where) + 1);
  }
}

TEST(Bpe, EqualsItsDefinition) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::pair<std::string, int32_t>> tokens;
    for (int32_t byte = 0; byte < 256; ++byte) tokens.emplace_back(std::string(1, static_cast<char>(byte)), byte);
    std::vector<std::string> spellings = {"a", "b", "c"};
    Ids ids = {'a', 'b', 'c'};
    std::vector<Bpe::Merge> merges;
    for (int32_t next = 256; next < 270; ++next) {
      const size_t left = random() % ids.size(), right = random() % ids.size();
      if (std::count(spellings.begin(), spellings.end(), spellings[left] + spellings[right])) continue;
      merges.push_back({ids[left], ids[right], next});
      spellings.push_back(spellings[left] + spellings[right]);
      ids.push_back(next);
      tokens.emplace_back(spellings.back(), next);
    }
    std::shuffle(merges.begin(), merges.end(), random);
    const Bpe bpe(tokens, merges, false);
    for (int i = 0; i < 50; ++i) {
      std::string word;
      for (size_t n = random() % 24; n > 0; --n) word += "abc"[random() % 3];
      Ids got;
      std::vector<size_t> begins;
      bpe.encode(word, got, &begins, 100);
      EXPECT_EQ(got, plain_bpe(word, merges)) << word;
      size_t at = 100;
      for (size_t k = 0; k < got.size(); ++k) {
        EXPECT_EQ(begins[k], at);
        at +=
            std::find_if(tokens.begin(), tokens.end(), [&](const auto& t) { return t.second == got[k]; })->first.size();
      }
    }
  }
}

// Pieces that were met before are remembered, for each tokenizer by itself.
TEST(Bpe, APieceIsTheSameHoweverOftenItComes) {
  std::vector<std::pair<std::string, int32_t>> tokens;
  for (int32_t byte = 0; byte < 256; ++byte) tokens.emplace_back(std::string(1, static_cast<char>(byte)), byte);
  const std::vector<Bpe::Merge> some = {{'a', 'b', 256}, {256, 'c', 257}}, others = {{'b', 'c', 256}};
  const Bpe first(tokens, some, false), second(tokens, others, false);
  std::vector<std::string> words = {"", "abc", "aabcc", std::string(30, 'a'), std::string(31, 'a'), "abcabcabcabc"};
  for (int n = 0; n < 20000; ++n) words.push_back(fmt::format("ab{}c", n));  // more than are remembered
  for (size_t offset = 0; offset < 3; ++offset) {
    for (const std::string& word : words) {
      for (const auto& [bpe, merges] : {std::pair(&first, &some), std::pair(&second, &others)}) {
        Ids ids;
        std::vector<size_t> begins;
        bpe->encode(word, ids, &begins, offset);
        ASSERT_EQ(ids, plain_bpe(word, *merges)) << word;
        ASSERT_EQ(begins.size(), ids.size());
        if (!word.empty()) {
          ASSERT_EQ(begins.front(), offset);
        }
        if (word == "aabcc" && bpe == &first) {
          ASSERT_EQ(begins, (std::vector<size_t>{offset, offset + 1, offset + 4}));
        }
      }
    }
  }
}

TEST(Bpe, WhatIsRememberedIsOfOneTokenizer) {
  std::vector<std::pair<std::string, int32_t>> tokens;
  for (int32_t byte = 0; byte < 256; ++byte) tokens.emplace_back(std::string(1, static_cast<char>(byte)), byte);
  const std::vector<Bpe::Merge> some = {{'a', 'b', 256}}, others = {{'b', 'c', 256}};
  std::optional<Bpe> bpe;
  for (const std::vector<Bpe::Merge>* merges : {&some, &others, &some}) {
    bpe.emplace(tokens, *merges, false);  // where the one before it was
    for (int again = 0; again < 2; ++again) {
      Ids ids;
      bpe->encode("abc", ids);
      EXPECT_EQ(ids, plain_bpe("abc", *merges));
    }
  }
  const Bpe copied = *bpe;
  bpe = Bpe(tokens, others, false);
  for (const auto& [one, merges] :
       {std::pair(&copied, &some), std::pair<const Bpe*, decltype(&some)>(&*bpe, &others)}) {
    Ids ids;
    one->encode("abc", ids);
    EXPECT_EQ(ids, plain_bpe("abc", *merges));
  }
}

TEST(Bpe, WholePiecesComeFirstOnlyWhereAsked) {
  const std::vector<std::pair<std::string, int32_t>> tokens = {{"a", 0}, {"b", 1}, {"c", 2}, {"bc", 3}, {"abc", 4}};
  const std::vector<Bpe::Merge> merges = {{1, 2, 3}};
  Ids with, without;
  Bpe(tokens, merges, true).encode("abc", with);
  Bpe(tokens, merges, false).encode("abc", without);
  EXPECT_EQ(with, Ids({4}));
  EXPECT_EQ(without, Ids({0, 3}));
}

TEST(Bpe, AByteThatIsNoTokenVanishesAndItsNeighboursMeet) {
  const Bpe bpe({{"a", 0}, {"b", 1}, {"ab", 2}}, {{0, 1, 2}}, false);
  Ids ids;
  std::vector<size_t> begins;
  bpe.encode(
      "\x01"
      "a\x04"
      "ba",
      ids, &begins);
  EXPECT_EQ(ids, Ids({2, 0}));
  EXPECT_EQ(begins, std::vector<size_t>({1, 4}));
  EXPECT_FALSE(bpe.knows_all_bytes());
}

TEST(Bpe, ImpliedMergesAreTiktokens) {
  // "abc" can come from a+bc and from ab+c; the one whose left part has the lower rank binds first.
  const auto merges = Bpe::implied_merges({{"a", 0}, {"b", 1}, {"c", 2}, {"bc", 3}, {"ab", 4}, {"abc", 5}});
  ASSERT_EQ(merges.size(), 4u);
  EXPECT_EQ(merges[0].joined, 3);
  EXPECT_EQ(merges[1].joined, 4);
  EXPECT_EQ(merges[2].left, 0);
  EXPECT_EQ(merges[3].left, 4);
}

TEST(PreTokenizer, SplitsAsEachFamilyDoes) {
  using Kind = PreTokenizer::Kind;
  using Pieces = std::vector<std::string>;
  const std::string text = "I'LL say 12345\r\n  (ok) ";
  EXPECT_EQ(pieces(Kind::llama3, text),
            Pieces({"I", "'LL", " say", " ", "123", "45", "\r\n", " ", " (", "ok", ")", " "}));
  EXPECT_EQ(pieces(Kind::gpt2, text), Pieces({"I", "'", "LL", " say", " 12345", "\r\n ", " (", "ok", ")", " "}));
  EXPECT_EQ(pieces(Kind::digits_gpt2, text),
            Pieces({"I", "'", "LL", " say", " ", "1", "2", "3", "4", "5", "\r\n ", " (", "ok", ")", " "}));
  EXPECT_EQ(pieces(Kind::digits_gpt2, "it's  1"), Pieces({"it", "'s", "  ", "1"})) << "a look-ahead ends at the digit";
  EXPECT_EQ(pieces(Kind::llama3, ""), Pieces());
}

TEST(PreTokenizer, KnowsTheClassesOfUnicode16WhateverPcreKnows) {
  using Kind = PreTokenizer::Kind;
  const std::string ideograph = "\xF0\xB1\x8D\x90", digit = "\xF0\x91\x9B\x90",
                    mongolian = "\xE1\xA0\x8E";  // U+31350, U+116D0, U+180E
  EXPECT_EQ(pieces(Kind::llama3, "a" + ideograph), std::vector<std::string>({"a" + ideograph}));
  EXPECT_EQ(pieces(Kind::llama3, "1" + digit), std::vector<std::string>({"1" + digit}));
  EXPECT_EQ(pieces(Kind::digits_gpt2, "1" + digit), std::vector<std::string>({"1", digit}));
  EXPECT_EQ(pieces(Kind::llama3, mongolian + "."), std::vector<std::string>({mongolian + "."})) << "U+180E is no space";
}

TEST(Unicode, ChecksAndRepairs) {
  for (const char* good : {"", "a", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
                           "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_EQ(first_invalid_utf8(good), std::string(good).size());
    EXPECT_EQ(repair_utf8(good), good);
  }
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xC2", "\xF0\x90\x80"}) {
    EXPECT_EQ(first_invalid_utf8(std::string("ok") + bad), 2u) << bad;
  }
  EXPECT_EQ(repair_utf8("a\xF0\x90\x80"
                        "b\xFF\xE2\x82"),
            "a\uFFFDb\uFFFD\uFFFD");
  EXPECT_EQ(repair_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(unfinished_utf8("a\xF0\x90\x80"), 3u);
  EXPECT_EQ(unfinished_utf8("a\xE2"), 1u);
  EXPECT_EQ(unfinished_utf8("a\xFF"), 0u);
  EXPECT_EQ(unfinished_utf8("\xE2\x82\xAC"), 0u);
  EXPECT_EQ(strip("\u3000\x1c\n a\u00a0b \u2029\t"), "a\u00a0b");
  EXPECT_EQ(strip("\u200b "), "\u200b");
  EXPECT_EQ(strip(" \n"), "");
}

}  // namespace
}  // namespace drover
