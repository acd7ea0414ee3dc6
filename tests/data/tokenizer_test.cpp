// Ids equal Hugging Face's (goldens), text never gives a special id, and what is not supported is refused by name.
#include "data/tokenizer.h"

#include <chrono>
#include <functional>
#include <random>

#include "tests/base/scratch_directory.h"
#include "tests/data/tokenizer_files.h"
#include "tests/support/real_files.h"

namespace drover {
namespace {

using Ids = std::vector<int32_t>;

Tokenizer open_with(const ScratchDirectory& dir, const json& tokenizer, const json& config = nullptr) {
  write_text(dir / "tokenizer.json", tokenizer.dump());
  fs::remove(dir / "tokenizer_config.json");
  if (!config.is_null()) write_text(dir / "tokenizer_config.json", config.dump());
  return Tokenizer::open(dir.path());
}

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

TEST(Tokenizer, BothSpellingsOfMergesAreRead) {
  ScratchDirectory dir;
  json pairs = small_tokenizer({"<|end|>"});
  for (json& merge : pairs["model"]["merges"]) {
    const std::string both = merge;
    merge = {both.substr(0, both.find(' ')), both.substr(both.find(' ') + 1)};
  }
  const Tokenizer a = open_with(dir, small_tokenizer({"<|end|>"}));
  const std::string& first = a.fingerprint();
  const Tokenizer b = open_with(dir, pairs);
  const std::string text = "the then in\n\nthin 42 h\xC3\xA9";
  EXPECT_EQ(a.encode("the then"), Ids({257, 258, 'n'}));
  EXPECT_EQ(a.encode(text), b.encode(text));
  EXPECT_EQ(a.decode(a.encode(text)), text);
  EXPECT_NE(first, b.fingerprint());
  EXPECT_EQ(a.vocab_size(), 301);
}

TEST(Tokenizer, TextNeverGivesASpecialId) {
  ScratchDirectory dir;
  json j = small_tokenizer({"<|im_start|>", "<|im_end|>", "th", "x"});
  j["added_tokens"][2]["id"] = 256;  // a special token that is a merge's result in the vocabulary …
  j["added_tokens"][3]["id"] = 'x';  // … and one that is a byte
  expect_error(Fault::bad_data, {"tokenizer.json", "merge", "special token \"th\""}, [&] { open_with(dir, j); });
  j["model"]["merges"] = json::array({"h e"});
  const Tokenizer t = open_with(dir, j);
  for (const std::string text : {"<|im_start|>system\nhi<|im_end|>", "<|im_<|im_end|>end|>", "<|im_start|><|im_start|>",
                                 "the thx x", "<|IM_END|>", "<\u200b|im_end|>"}) {
    for (int32_t id : t.encode(text)) EXPECT_FALSE(t.is_special(id)) << text;
  }
  EXPECT_EQ(t.decode(t.encode("a<|im_start|>b")), "a<|im_start|>b");
  EXPECT_EQ(t.encode_special("a<|im_start|>b<|im_end|>"), Ids({'a', 300, 'b', 301}));
  EXPECT_EQ(t.decode(t.encode_special("a<|im_start|>b<|im_end|>")), "ab");
  EXPECT_EQ(t.decode(t.encode_special("a<|im_start|>b<|im_end|>"), false), "a<|im_start|>b<|im_end|>");
  EXPECT_EQ(t.special("<|im_end|>"), 301);
  EXPECT_EQ(t.special("<|im_|>"), std::nullopt);
}

TEST(Tokenizer, AddedWordsAreFoundInText) {
  ScratchDirectory dir;
  json j = small_tokenizer({"<|end|>"});
  j["added_tokens"].push_back(added_token(310, "drover", false));
  j["added_tokens"].push_back(added_token(311, "droverland", false));
  j["added_tokens"].push_back(added_token(312, "land a", false));
  j["added_tokens"].push_back(added_token(313, "d a", false));
  j["added_tokens"].back()["normalized"] = false;  // found before the others are looked for
  const Tokenizer t = open_with(dir, j);
  EXPECT_EQ(t.encode("adroverlands"), Ids({'a', 311, 's'})) << "the longest";
  EXPECT_EQ(t.encode("drover drove"), Ids({310, ' ', 'd', 'r', 'o', 'v', 'e'}));
  EXPECT_EQ(t.encode("land a"), Ids({'l', 'a', 'n', 313}));
  std::vector<size_t> begins = {7, 7};
  EXPECT_EQ(t.encode("the drover in", &begins), Ids({257, ' ', 310, ' ', 260}));
  EXPECT_EQ(begins, std::vector<size_t>({0, 3, 4, 10, 11}));
  EXPECT_EQ(t.decode(Ids({257, 310}), true), "thedrover");
}

TEST(Tokenizer, FurtherSpecialTokensAreThoseOfTheConfiguration) {
  ScratchDirectory dir;
  json j = small_tokenizer({"<s>", "</s>"});
  j["added_tokens"][1]["special"] = false;
  EXPECT_FALSE(open_with(dir, j).special("</s>"));
  EXPECT_EQ(open_with(dir, j, {{"additional_special_tokens", {"</s>"}}}).special("</s>"), 301);
  EXPECT_EQ(open_with(dir, j, {{"extra_special_tokens", {{"end", "</s>"}}}}).special("</s>"), 301);
  EXPECT_EQ(open_with(dir, j, {{"extra_special_tokens", json::array({{{"content", "</s>"}}})}}).special("</s>"), 301);
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    expect_error(Fault::bad_data, {"names the token \"<none>\", which tokenizer.json does not have"}, [&] {
      open_with(dir, j, {{key, {"<none>"}}});
    });
  }
}

TEST(Tokenizer, BosIsWhatTheFilesSay) {
  ScratchDirectory dir;
  json j = small_tokenizer({"<s>", "</s>"});
  const Tokenizer none = open_with(dir, j);
  EXPECT_FALSE(none.adds_bos());
  EXPECT_EQ(none.bos(), std::nullopt);
  // What stands next to tokenizer.json does not decide, as in transformers.
  const Tokenizer configured =
      open_with(dir, j, {{"bos_token", {{"content", "<s>"}}}, {"eos_token", "</s>"}, {"add_bos_token", true}});
  EXPECT_FALSE(configured.adds_bos());
  EXPECT_EQ(configured.bos(), 300);
  EXPECT_EQ(configured.eos(), 301);
  EXPECT_NE(configured.fingerprint(), none.fingerprint());
  const auto token = [](const char* name) { return json{{"SpecialToken", {{"id", name}, {"type_id", 0}}}}; };
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json tokens = {{"<s>", {{"id", "<s>"}, {"ids", {300}}}}, {"</s>", {{"id", "</s>"}, {"ids", {301}}}}};
  const auto with = [&](const json& single) {
    j["post_processor"] = {
        {"type", "Sequence"},
        {"processors",
         json::array({{{"type", "ByteLevel"}},
                      {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", tokens}}})}};
    return j;
  };
  const Tokenizer processed = open_with(dir, with(json::array({token("<s>"), text})));
  EXPECT_TRUE(processed.adds_bos());
  EXPECT_EQ(processed.bos(), 300);
  EXPECT_EQ(processed.encode("in"), Ids({260})) << "encode itself adds nothing";
  EXPECT_EQ(processed.encode_document("in"), Ids({300, 260}));
  EXPECT_TRUE(open_with(dir, j, {{"add_bos_token", false}}).adds_bos());
  const Tokenizer both = open_with(dir, with(json::array({token("<s>"), text, token("</s>")})));
  EXPECT_EQ(both.encode_document("in"), Ids({300, 260, 301}));
  EXPECT_EQ(both.encode_document(""), Ids({300, 301}));
  EXPECT_EQ(both.after(), Ids({301}));
  const auto refused = [&](const json& single, const std::string& word) {
    expect_error(Fault::bad_data, {"tokenizer.json", "post_processor", word}, [&] { open_with(dir, with(single)); });
  };
  refused(json::array({token("<s>")}), "0 times");
  refused(json::array({text, token("<s>"), text}), "2 times");
  refused(json::array({token("<x>"), text}), "\"<x>\", which is not among its special_tokens");
  refused(json::array({text, {{"Sequence", {{"id", "B"}}}}}), "TemplateProcessing with");
  j["post_processor"] = {{"type", "BertProcessing"}, {"cls", {"<s>", 300}}, {"sep", {"</s>", 3000}}};
  expect_error(Fault::bad_data, {"the id 3000, which is no token"}, [&] { open_with(dir, j); });
  j["post_processor"]["sep"] = {"</s>", 301};
  EXPECT_EQ(open_with(dir, j).encode_document("in"), Ids({300, 260, 301}));
  j["post_processor"] = {{"type", "Sequence"}, {"processors", json::array({j["post_processor"], j["post_processor"]})}};
  expect_error(Fault::bad_data, {"BertProcessing behind another"}, [&] { open_with(dir, j); });
  j["post_processor"] = {{"type", "PairProcessing"}};
  expect_error(Fault::bad_data, {"the post_processor PairProcessing"}, [&] { open_with(dir, j); });
}

TEST(Tokenizer, TokensOfTheConfigurationAreSpecialOrRefused) {
  ScratchDirectory dir;
  json j = small_tokenizer({"<s>"});
  j["model"]["vocab"]["<e>"] = 299;
  const Tokenizer t = open_with(dir, j, {{"eos_token", "<e>"}, {"pad_token", "[PAD]"}});
  EXPECT_EQ(t.eos(), 299);
  EXPECT_TRUE(t.is_special(299)) << "as transformers makes a word of the vocabulary";
  EXPECT_EQ(t.encode_special("<e>"), Ids({299}));
  EXPECT_EQ(t.encode("<e>"), Ids({'<', 'e', '>'}));
  expect_error(Fault::bad_data, {"tokenizer_config.json", "\"<x>\"", "save_pretrained"}, [&] {
    open_with(dir, j, {{"eos_token", "<x>"}});
  });
  expect_error(Fault::bad_data, {"tokenizer_config.json", "\"<y>\""}, [&] {
    open_with(dir, j, {{"added_tokens_decoder", {{"310", {{"content", "<y>"}, {"special", true}}}}}});
  });
}

TEST(Tokenizer, TextThatIsNotUtf8IsRefusedByTheByte) {
  ScratchDirectory dir;
  const Tokenizer t = open_with(dir, small_tokenizer({"<|end|>"}));
  expect_error(Fault::bad_data, {"UTF-8", "byte 3"}, [&] { t.encode("the\xFF"); });
  expect_error(Fault::bad_data, {"UTF-8", "byte 7"}, [&] { t.encode_special("<|end|>\xE2\x82"); });
  EXPECT_EQ(t.encode(std::string("\0\x7F", 2)), Ids({0, 127}));
}

TEST(Tokenizer, StreamingHoldsBackHalfCharacters) {
  ScratchDirectory dir;
  const Tokenizer t = open_with(dir, small_tokenizer({"<|end|>"}));
  StreamDecoder stream(t);
  EXPECT_EQ(stream.push(257), "the");
  EXPECT_EQ(stream.push(0xE2), "");
  EXPECT_EQ(stream.push(0x82), "");
  EXPECT_EQ(stream.push(0xAC), "\u20AC");
  EXPECT_EQ(stream.push(0xFF), "\uFFFD");
  EXPECT_EQ(stream.push(0xF0), "");
  EXPECT_EQ(stream.push(300), "") << "special tokens are not shown";
  EXPECT_EQ(stream.push(999), "") << "a padding row of the model's vocabulary";
  EXPECT_EQ(stream.push('a'), "\uFFFDa");
  EXPECT_EQ(stream.push(0xC3), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(t.decode(Ids({-1, 999, 'a'})), "a");
}

TEST(Tokenizer, WhatIsNotSupportedIsNamed) {
  struct Case {
    std::function<void(json&)> change;
    std::string word;
  };
  const std::vector<Case> cases = {
      {[](json& j) { j["model"]["type"] = "Unigram"; }, "Unigram"},
      {[](json& j) { j["model"]["byte_fallback"] = true, j["model"]["vocab"].erase("!"); }, "byte_fallback"},
      {[](json& j) { j["model"]["new_rule"] = 1; }, "the field new_rule of the model"},
      {[](json& j) { j["new_part"] = 1; }, "the field new_part of the tokenizer"},
      {[](json& j) { j["version"] = "2.0"; }, "the version \"2.0\""},
      {[](json& j) { j["added_tokens"][0]["fuzzy"] = true; }, "the field fuzzy of an added token"},
      {[](json& j) { j["model"]["dropout"] = 0.1; }, "model.dropout"},
      {[](json& j) { j["model"]["continuing_subword_prefix"] = "##"; }, "continuing_subword_prefix"},
      {[](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, "end_of_word_suffix"},
      {[](json& j) { j["model"]["vocab"] = json::array({"a"}); }, "map from tokens to ids"},
      {[](json& j) { j["model"]["vocab"].erase("!"), j["model"]["unk_token"] = "a"; }, "unk_token"},
      {[](json& j) {
         j["normalizer"] = {{"type", "NFC"}};
       },
       "the normalizer NFC"},
      {[](json& j) {
         j["normalizer"] = {{"type", "Prepend"}, {"prepend", "_"}};
       },
       "a normalizer with the pre_tokenizer ByteLevel"},
      {[](json& j) { j["pre_tokenizer"] = nullptr; }, "missing pre_tokenizer"},
      {[](json& j) { j["pre_tokenizer"]["type"] = "Whitespace"; }, "the pre_tokenizer Whitespace"},
      {[](json& j) { j["pre_tokenizer"]["cut"] = true; }, "the field cut of the pre_tokenizer ByteLevel"},
      {[](json& j) { j["decoder"]["type"] = "WordPiece"; }, "a decoder that is not ByteLevel"},
      {[](json& j) { j["pre_tokenizer"]["add_prefix_space"] = true; }, "add_prefix_space"},
      {[](json& j) { j["pre_tokenizer"]["use_regex"] = false; }, "made of ByteLevel"},
      {[](json& j) {
         j["pre_tokenizer"] = {
             {"type", "Sequence"},
             {"pretokenizers", json::array({{{"type", "Digits"}, {"individual_digits", false}}, j["pre_tokenizer"]})}};
       },
       "made of Digits, ByteLevel with regex"},
      {[](json& j) {
         j["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "\\d"}}}, {"behavior", "Isolated"}};
       },
       "Split by"},
      {[](json& j) { j["model"]["vocab"]["\u4f60"] = 290; }, "not spelled in byte-level characters"},
      // Damaged.
      {[](json& j) { j["added_tokens"][0]["id"] = 257; }, "both have the id 257"},
      {[](json& j) { j["model"]["vocab"]["th"] = 260; }, "both have the id 260"},
      {[](json& j) { j["model"]["vocab"]["th"] = -1; }, "the id -1"},
      {[](json& j) { j["model"]["vocab"]["th"] = 1u << 31; }, "the id 2147483648"},
      {[](json& j) { j["model"]["vocab"]["th"] = uint64_t{1} << 63; }, "the id 9223372036854775808"},
      {[](json& j) { j["model"]["vocab"]["th"] = 256.5; }, "the id 256.5"},
      {[](json& j) { j["added_tokens"][0]["id"] = int64_t{1} << 32; }, "the id 4294967296"},
      {[](json& j) { j["added_tokens"][0]["content"] = ""; }, "no spelling"},
      {[](json& j) { j["added_tokens"].push_back(added_token(301, "<|end|>")); }, "stands twice"},
      {[](json& j) { j["added_tokens"].push_back(added_token(301, "the", false)); }, "257 in the vocabulary and 301"},
      {[](json& j) { j["model"]["merges"].push_back("q q"); }, "\"qq\", which is not in the vocabulary"},
      {[](json& j) { j["model"]["merges"].push_back("the"); }, "does not name two tokens"},
      {[](json& j) { j["model"]["merges"].push_back("t h e"); }, "does not name two tokens"},
      {[](json& j) { j["model"]["merges"].push_back(json::array({"t"})); }, "not a tokenizer of Hugging Face's form"},
      {[](json& j) { j.erase("model"); }, "not a tokenizer of Hugging Face's form"},
      {[](json& j) { j["model"].erase("merges"); }, "not a tokenizer of Hugging Face's form"},
      {[](json& j) { j = json::array(); }, "not a tokenizer of Hugging Face's form"},
  };
  ScratchDirectory dir;
  for (const Case& c : cases) {
    json j = small_tokenizer({"<|end|>"});
    c.change(j);
    SCOPED_TRACE(c.word);
    expect_error(Fault::bad_data, {"tokenizer.json", c.word}, [&] { open_with(dir, j); });
  }
  write_text(dir / "tokenizer.json", small_tokenizer({}).dump().substr(0, 1000));
  expect_error(Fault::bad_data, {"tokenizer.json"}, [&] { Tokenizer::open(dir.path()); });
  write_text(dir / "tokenizer.json", std::string(100000, '['));
  expect_error(Fault::bad_data, {"tokenizer.json"}, [&] { Tokenizer::open(dir.path()); });
  expect_error(Fault::bad_data, {"tokenizer_config.json"},
               [&] { open_with(dir, small_tokenizer({}), json::array({1})); });
}

// Llama 2's kind, with what is not supported of it.
TEST(Tokenizer, WhatIsNotSupportedOfMarksIsNamed) {
  const auto change = [](const char* part, const json& value) { return [part, value](json& j) { j[part] = value; }; };
  const json metaspace = {{"type", "Metaspace"}, {"replacement", "\u2581"}};
  const auto with = [](json object, const char* key, const json& value) {
    object[key] = value;
    return object;
  };
  const json back = {{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}};
  const auto decoder = [&](const json& steps) { return json{{"type", "Sequence"}, {"decoders", steps}}; };
  const json strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}, fuse = {{"type", "Fuse"}};
  const std::vector<std::pair<std::function<void(json&)>, std::string>> cases = {
      {change("normalizer", {{"type", "NFKC"}}), "the normalizer NFKC"},
      {change("normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Precompiled"}}}}}), "Precompiled"},
      {change("normalizer", {{"type", "Replace"}, {"pattern", {{"Regex", " +"}}}, {"content", "_"}}),
       "Replace of {\"Regex"},
      {change("pre_tokenizer", with(metaspace, "replacement", "__")), "the replacement \"__\""},
      {change("pre_tokenizer", with(metaspace, "prepend_scheme", "last")), "the prepend_scheme last"},
      {change("pre_tokenizer", with(metaspace, "add_prefix_space", false)), "without add_prefix_space"},
      {change("pre_tokenizer", with(metaspace, "words", 1)), "the field words of the pre_tokenizer Metaspace"},
      {change("pre_tokenizer", nullptr), "missing pre_tokenizer"},
      {change("decoder", nullptr), "a missing decoder"},
      {change("decoder", {{"type", "ByteLevel"}}), "the decoder ByteLevel without"},
      {change("decoder", decoder({back, fuse})), "a decoder made of Replace, Fuse"},
      {change("decoder", decoder({back, {{"type", "ByteFallback"}}, fuse, with(strip, "stop", 1)})),
       "the decoder Strip"},
      {change("decoder", decoder({back, {{"type", "CTC"}}})), "the decoder CTC"},
      {[](json& j) { j["model"]["unk_token"] = "<none>"; }, "model.unk_token \"<none>\""},
  };
  json whole = small_tokenizer({"<s>"});
  whole["pre_tokenizer"] = metaspace;
  whole["decoder"] = decoder({back, {{"type", "ByteFallback"}}, fuse, strip});
  ScratchDirectory dir;
  EXPECT_EQ(open_with(dir, whole).encode("in"), Ids({260})) << "whole as it is; \u2581 is no token here";
  for (const auto& [change, word] : cases) {
    json j = whole;
    change(j);
    SCOPED_TRACE(word);
    expect_error(Fault::bad_data, {"tokenizer.json", word}, [&] { open_with(dir, j); });
  }
}

TEST(Tokenizer, StreamsShowBytesThatAreTextAtOnce) {
  ScratchDirectory dir;
  json j = small_tokenizer({"<s>"});
  const char* mark = "\u2581";
  j["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", mark}};
  j["decoder"] = {{"type", "Sequence"},
                  {"decoders", json::array({{{"type", "Replace"}, {"pattern", {{"String", mark}}}, {"content", " "}},
                                            {{"type", "ByteFallback"}},
                                            {{"type", "Fuse"}},
                                            {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}})}};
  j["model"]["vocab"] = {{mark, 0}, {"a", 1}, {"<0x0A>", 2}, {"<0xC3>", 3}, {"<0xA9>", 4}, {"<0xE2>", 5}};
  j["model"]["merges"] = json::array();
  const Tokenizer t = open_with(dir, j);
  StreamDecoder stream(t);
  EXPECT_EQ(stream.push(0), "") << "the first space is a mark of the beginning";
  EXPECT_EQ(stream.push(0), " ");
  EXPECT_EQ(stream.push(2), "\n") << "so that a stop text ends here";
  EXPECT_EQ(stream.push(300), "");
  EXPECT_EQ(stream.push(3), "");
  EXPECT_EQ(stream.push(4), "\u00e9");
  EXPECT_EQ(stream.push(5), "");
  EXPECT_EQ(stream.push(3), "");
  EXPECT_EQ(stream.push(1), "\uFFFD\uFFFDa");
  EXPECT_EQ(stream.push(5), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  std::string five;
  for (int i = 0; i < 5; ++i) five += "\uFFFD";
  EXPECT_EQ(t.decode(Ids({0, 0, 2, 300, 3, 4, 5, 3, 1, 5})), " " + five + "a\uFFFD") << "as Hugging Face's";
  EXPECT_EQ(t.decode(Ids({0, 1, 300, 0, 1}), false), "a<s> a");
}

TEST(Tokenizer, MissingFilesAreNamed) {
  ScratchDirectory dir;
  expect_error(Fault::missing_input, {"tokenizer.json", "tokenizer.model", "model.tokenizer"},
               [&] { Tokenizer::open(dir.path()); });
  expect_error(Fault::missing_input, {"absent"}, [&] { Tokenizer::open(dir / "absent"); });
}

TEST(Tokenizer, DamagedRanksAreNamedByLine) {
  ScratchDirectory dir;
  const auto expect_line = [&](const std::string& text, const std::string& word) {
    write_text(dir / "tokenizer.model", text);
    expect_error(Fault::bad_data, {"tokenizer.model", word}, [&] { Tokenizer::open(dir.path()); });
  };
  expect_line("IQ== 0\nIg== 2\n", ":2: expected \"BASE64 1\"");
  expect_line("IQ== 0\nIg== 1x\n", ":2:");
  expect_line("IQ== 0\nI? 1\n", ":2:");
  expect_line("IQ==0\n", ":1:");
  expect_line("IQ== 0\nIQ== 1\n", ":2: this token stands");
  expect_line("\x0A\x0E\x0A\x05<unk>", "SentencePiece's file, which is not read");
  expect_line("\x0A\x0E\x0A\x05<unk>", "save_pretrained(sys.argv[1])' " + dir.path().string());
  expect_line("IQ== 0\r\nIg== 1\r\n", "2 tokens, Llama 3's tokenizer.model has 128000");
  expect_line("", "0 tokens");
}

TEST(Tokenizer, AMillionBytesWithoutASpace) {
  ScratchDirectory dir;
  const Tokenizer t = open_with(dir, small_tokenizer({"<|end|>"}));
  std::string word, spaces(1000000, ' ');
  for (int i = 0; i < 250000; ++i) word += "thet";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(t.decode(t.encode(word)), word);
  EXPECT_EQ(t.decode(t.encode(spaces + "x")), spaces + "x");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << "quadratic time would take hours";
}

// Every id of every golden text, and that text gave no special id though texts spell them.
void check_golden(const Tokenizer& t, const char* name) {
  const std::vector<json> rows = golden_rows("texts.jsonl");
  ASSERT_GE(rows.size(), 80u);
  int spelled = 0;
  for (const json& row : rows) {
    const std::string text = row["text"];
    const json& expected = row[name];
    const Ids plain = t.encode(text);
    EXPECT_EQ(plain, expected["plain"].get<Ids>()) << row["name"];
    for (int32_t id : plain) EXPECT_FALSE(t.is_special(id)) << row["name"];
    EXPECT_EQ(t.encode_special(text), expected.value("special", expected["plain"]).get<Ids>()) << row["name"];
    spelled += expected.contains("special");
    StreamDecoder stream(t);
    std::string streamed;
    for (int32_t id : plain) streamed += stream.push(id);
    EXPECT_EQ(streamed + stream.finish(), t.decode(plain)) << row["name"];
  }
  EXPECT_GT(spelled, 0);
}

TEST(Golden, SmolLM2Ids) {
  const auto directory = real_path("DROVER_SMOLLM2", "smollm2");
  if (!directory) GTEST_SKIP();
  const Tokenizer t = Tokenizer::open(*directory);
  check_golden(t, "smollm2");
  EXPECT_FALSE(t.adds_bos());
  EXPECT_EQ(t.bos(), 1);
  EXPECT_EQ(t.vocab_size(), 49152);
}

TEST(Golden, Llama3Ids) {
  const auto directory = real_path("DROVER_LLAMA3_TOKENIZER", "llama3-tokenizer");
  if (!directory) GTEST_SKIP();
  const Tokenizer t = Tokenizer::open(*directory);
  check_golden(t, "llama3");
  EXPECT_TRUE(t.adds_bos());
  EXPECT_EQ(t.bos(), 128000);
  EXPECT_EQ(t.vocab_size(), 128256);
  EXPECT_EQ(t.special("<|eot_id|>"), 128009);
  EXPECT_EQ(t.special("<|reserved_special_token_247|>"), 128255);
  EXPECT_EQ(t.encode("This is a test sentence."), Ids({2028, 374, 264, 1296, 11914, 13}));
  for (int32_t id = 128000; id < 128256; ++id) {
    const std::string& spelling = t.raw_bytes(id);
    for (const std::string& text : {spelling, "a" + spelling + "\n", spelling + spelling}) {
      const Ids ids = t.encode(text);
      EXPECT_TRUE(std::all_of(ids.begin(), ids.end(), [](int32_t i) { return i < 128000; })) << spelling;
      EXPECT_EQ(t.decode(ids), text);
    }
  }
}

}  // namespace
}  // namespace drover
