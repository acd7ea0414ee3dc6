// Every kind of tokenizer that is read, against the tokenizers library and transformers
// (tests/golden/tokenizer_kinds.py).
#include <gtest/gtest.h>

#include "data/chat_template.h"
#include "data/text_pattern.h"
#include "data/tokenizer.h"
#include "kernels/base/hash.h"
#include "kernels/base/unicode.h"
#include "tests/base/scratch_directory.h"
#include "tests/data/tokenizer_files.h"

namespace drover {
namespace {

using Ids = std::vector<int32_t>;

class TokenizerKinds : public testing::Test {
 protected:
  static const json& golden() {
    static const json all = golden_rows("tokenizer_kinds.json").at(0);
    return all;
  }
  static const json& kind(const std::string& name) {
    for (const json& k : golden()["kinds"]) {
      if (k["name"] == name) return k;
    }
    throw std::runtime_error("no kind " + name);
  }
  // The whole tokenizer.json of a kind.
  static json file_of(const json& kind) {
    json file = kind["tokenizer"];
    const json& base = golden()["vocabularies"][kind["base"].get<std::string>()];
    file["model"]["vocab"] = base["vocab"];
    file["model"]["merges"] = base["merges"];
    for (const std::string token : kind["gone"]) file["model"]["vocab"].erase(token);
    if (kind["name"].get<std::string>().find("0.13") == std::string::npos) return file;
    for (json& merge : file["model"]["merges"]) merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    return file;
  }
  Tokenizer open(const json& file, const json& config = json::object()) const {
    write_text(dir_ / "tokenizer.json", file.dump());
    write_text(dir_ / "tokenizer_config.json", config.dump());
    return Tokenizer::open(dir_.path());
  }
  static std::string short_hash(const std::string& text) { return sha256_hex(text).substr(0, 8); }
  static std::string hash_of(const Ids& ids) { return short_hash(json(ids).dump()); }

 private:
  ScratchDirectory dir_;
};

std::string streamed(const Tokenizer& t, const Ids& ids) {
  StreamDecoder stream(t);
  std::string text;
  for (int32_t id : ids) text += stream.push(id);
  return text + stream.finish();
}

TEST_F(TokenizerKinds, GiveTheIdsOfTheLibrary) {
  const std::vector<std::string> texts = golden()["texts"];
  ASSERT_GE(texts.size(), 300u);
  ASSERT_GE(golden()["kinds"].size(), 18u);
  for (const json& k : golden()["kinds"]) {
    const Tokenizer t = open(file_of(k));
    EXPECT_EQ(t.vocab_size(), k["size"].get<int64_t>()) << k["name"];
    const std::string plain = k["plain"], special = k["special"];
    int wrong = 0;
    for (size_t i = 0; i < texts.size() && wrong < 5; ++i) {
      std::vector<size_t> begins;
      const Ids ids = t.encode(texts[i], &begins);
      wrong += hash_of(ids) != plain.substr(8 * i, 8);
      EXPECT_EQ(hash_of(ids), plain.substr(8 * i, 8)) << k["name"] << ": " << json(texts[i]) << " gives " << json(ids);
      const Ids parsed = t.encode_special(texts[i]);
      wrong += hash_of(parsed) != special.substr(8 * i, 8);
      EXPECT_EQ(hash_of(parsed), special.substr(8 * i, 8))
          << k["name"] << ": " << json(texts[i]) << " gives " << json(parsed);
      ASSERT_EQ(begins.size(), ids.size());
      EXPECT_TRUE(std::ranges::is_sorted(begins)) << k["name"] << ": " << json(texts[i]);
      for (int32_t id : ids) EXPECT_TRUE(!t.is_special(id) || id == t.unknown()) << k["name"] << ": " << json(texts[i]);
      std::vector<size_t> all_begins;
      const Tokenizer::Range everywhere[] = {{0, texts[i].size()}};
      EXPECT_EQ(t.encode_rendered(texts[i], everywhere, all_begins), parsed) << k["name"] << ": " << json(texts[i]);
    }
  }
}

TEST_F(TokenizerKinds, GiveTheTextsOfTheLibrary) {
  const std::vector<std::string> texts = golden()["texts"];
  for (const json& k : golden()["kinds"]) {
    const Tokenizer t = open(file_of(k));
    std::vector<Ids> lists;
    for (const std::string& text : texts) lists.push_back(t.encode_special(text));
    const int32_t size = k["size"];
    for (Ids ids : golden()["lists"]) {
      for (int32_t& id : ids) id %= size;
      lists.push_back(ids);
    }
    const std::string expected = k["decoded"];
    if (expected.empty()) continue;
    ASSERT_EQ(expected.size(), 8 * lists.size());
    for (size_t i = 0; i < lists.size(); ++i) {
      const std::string text = t.decode(lists[i]), shown = t.decode(lists[i], false);
      ASSERT_EQ(short_hash(text + "|" + shown), expected.substr(8 * i, 8))
          << k["name"] << ": " << json(lists[i]) << " gives " << json(text) << " and " << json(shown);
      // A run of bytes that is no text may have been shown in part.
      if (text.find("\uFFFD") == std::string::npos) {
        EXPECT_EQ(streamed(t, lists[i]), text) << k["name"] << ": " << json(lists[i]);
      }
    }
  }
}

TEST_F(TokenizerKinds, TextsAreFramedAsInTransformers) {
  json file = file_of(kind("llama2"));
  std::set<std::string> processors;
  for (const json& frame : golden()["frames"]) {
    file["post_processor"] = frame["post_processor"];
    const Tokenizer t = open(file, frame["config"]);
    EXPECT_EQ(t.encode_document("a b"), frame["ids"].get<Ids>()) << frame.dump();
    EXPECT_EQ(t.adds_bos(), frame["ids"][0] == 1) << frame.dump();
    EXPECT_EQ(t.bos(), 1);
    EXPECT_EQ(t.eos(), 2);
    processors.insert(frame["post_processor"].dump());
  }
  EXPECT_GE(processors.size(), 10u);
}

TEST_F(TokenizerKinds, TheConfigurationChangesAddedTokensAsInTransformers) {
  const json file = file_of(kind("bytes added"));
  std::set<std::string> seen;
  for (const json& c : golden()["configured"]) {
    const Tokenizer t = open(file, c["config"]);
    for (size_t i = 0; i < c["texts"].size(); ++i) {
      const Ids ids = t.encode_special(c["texts"][i].get<std::string>());
      EXPECT_EQ(ids, c["ids"][i].get<Ids>()) << c["config"].dump() << c["texts"][i];
      EXPECT_EQ(t.decode(ids), c["decoded"][i].get<std::string>()) << c["config"].dump() << c["texts"][i];
    }
    seen.insert(c["ids"].dump() + c["decoded"].dump());
  }
  EXPECT_EQ(seen.size(), golden()["configured"].size()) << "every configuration changes something";
}

// A rendered dialog is one text: what follows a control token is not the beginning of one, and <|im_end|> takes the
// line end behind it.
TEST_F(TokenizerKinds, NativeTemplatesAreEncodedAsOneText) {
  for (const char* name : {"first", "always", "llama2", "split"}) {
    json file = file_of(kind(name));
    const auto add = [&](const char* token, bool rstrip) {
      file["added_tokens"].push_back(added_token(static_cast<int>(600 + file["added_tokens"].size()), token));
      file["added_tokens"].back()["rstrip"] = rstrip;
    };
    add("<|im_start|>", false);
    add("<|im_end|>", true);
    const Tokenizer t = open(file);
    const std::vector<Message> dialog{{"user", "the harbour @?"}, {"assistant", "it is open "}};
    const Rendered r = render(dialog, ChatTemplate{ChatTemplate::Family::chatml}, t);
    const std::string text =
        "<|im_start|>user\nthe harbour @?<|im_end|>\n<|im_start|>assistant\nit is open <|im_end|>\n";
    EXPECT_EQ(r.ids, t.encode_special(text)) << name;
    Ids trained;
    for (size_t i = 0; i < r.ids.size(); ++i) {
      if (r.trained[i] != 0) trained.push_back(r.ids[i]);
    }
    EXPECT_EQ(t.decode(trained, false), "it is open <|im_end|>") << name;
  }
}

TEST_F(TokenizerKinds, WordsAreMadeOfRustsCharacters) {
  std::vector<std::pair<char32_t, char32_t>> ranges;
  for (const json& r : golden()["word_characters"]) ranges.emplace_back(r[0].get<char32_t>(), r[1].get<char32_t>());
  size_t next = 0;
  for (char32_t code = 0; code < 0x30000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    while (next < ranges.size() && ranges[next].second < code) ++next;
    const std::string character =
        code < 0x80    ? std::string{static_cast<char>(code)}
        : code < 0x800 ? std::string{static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))}
        : code < 0x10000
            ? std::string{static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
                          static_cast<char>(0x80 | (code & 0x3F))}
            : std::string{static_cast<char>(0xF0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 0x3F)),
                          static_cast<char>(0x80 | (code >> 6 & 0x3F)), static_cast<char>(0x80 | (code & 0x3F))};
    const bool word = next < ranges.size() && ranges[next].first <= code;
    ASSERT_EQ(begins_with_word(character), word) << std::hex << static_cast<uint32_t>(code);
    ASSERT_EQ(ends_with_word("." + character), word) << std::hex << static_cast<uint32_t>(code);
  }
}

}  // namespace
}  // namespace drover
