// Ids equal Hugging Face's (goldens), and text never gives a special id.
#include "data/tokenizer.h"

#include <chrono>

#include "tests/base/scratch_directory.h"
#include "tests/data/tokenizer_files.h"
#include "tests/support/real_files.h"

namespace drover {
namespace {

using Ids = std::vector<int32_t>;

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
