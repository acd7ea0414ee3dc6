// What a tokenizer's files say that is not supported or damaged, and text that is no UTF-8: refused by name and place.
#include <functional>

#include "tests/data/tokenizer_files.h"

namespace drover {
namespace {

using Ids = std::vector<int32_t>;

TEST(Tokenizer, TextThatIsNotUtf8IsRefusedByTheByte) {
  ScratchDirectory dir;
  const Tokenizer t = open_with(dir, small_tokenizer({"<|end|>"}));
  expect_error(Fault::bad_data, {"UTF-8", "byte 3"}, [&] { t.encode("the\xFF"); });
  expect_error(Fault::bad_data, {"UTF-8", "byte 7"}, [&] { t.encode_special("<|end|>\xE2\x82"); });
  EXPECT_EQ(t.encode(std::string("\0\x7F", 2)), Ids({0, 127}));
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

}  // namespace
}  // namespace drover
