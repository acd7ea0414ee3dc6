// Rows of every format as tokens: what is trained, what ends a document, what control tokens in texts are, and how
// often sources come.
#include <gtest/gtest.h>

#include "data/loader.h"
#include "data/prepare.h"
#include "tests/base/scratch_directory.h"
#include "tests/data/made_up_tokenizer.h"
#include "tests/support/real_files.h"
#include "tests/support/token_store.h"

namespace drover {
namespace {

class PrepareFormats : public testing::Test {
 protected:
  PrepareFormats() : tokenizer(made_up_tokenizer(scratch / "bare")) {
    ending("<|im_end|>");
    settings.sources = {{scratch / "rows.jsonl"}};
    settings.chat = ChatTemplate{ChatTemplate::Family::chatml, std::nullopt};
    settings.packing = false;
  }
  void ending(const std::string& eos, bool bos = false) {
    const fs::path directory = scratch / ("tokenizer" + eos.substr(eos.empty() ? 0 : 2, 4) + (bos ? "b" : ""));
    make_directories(directory);
    write_text(directory / "tokenizer_config.json", eos.empty() ? "{}" : "{\"eos_token\": \"" + eos + "\"}");
    tokenizer = made_up_tokenizer(directory, true, bos);
  }
  TokenStore prepared(const std::string& rows) {
    write_text(settings.sources[0].path, rows);
    report = {};
    return prepare(settings, tokenizer, report);
  }
  // The first document, its trained tokens in [[ ]].
  std::string shown(const std::string& rows) { return show(prepared(rows).document(0), tokenizer, "[[", "]]"); }

  ScratchDirectory scratch;
  Tokenizer tokenizer;
  PrepareSettings settings;
  PrepareReport report;
};

const std::string kCompletion = R"({"prompt": "1 + 1 =", "completion": " 2"})";
const std::string kAlpaca = R"({"instruction": "Add.", "input": "1 2", "output": "3"})";

TEST_F(PrepareFormats, OfACompletionTheCompletionIsTrainedAndEos) {
  EXPECT_EQ(shown(kCompletion), "1 + 1 =[[ 2⟨<|im_end|>⟩]]");
  EXPECT_EQ(report.formats, std::vector<RowFormat>{RowFormat::prompt_completion});
  settings.train_on = TrainOn::all;
  EXPECT_EQ(shown(kCompletion), "1[[ + 1 = 2⟨<|im_end|>⟩]]");
  settings.train_on = TrainOn::assistant;
  ending("<|im_end|>", true);
  EXPECT_EQ(shown(kCompletion), "⟨<|im_start|>⟩1 + 1 =[[ 2⟨<|im_end|>⟩]]");
  settings.max_length = 8;
  prepared(kCompletion + "\n" + R"({"prompt": "x", "completion": "y"})");
  EXPECT_EQ(report.cut_before_answers, 1);
  ending("");
  expect_error(Fault::bad_recipe, {"rows.jsonl:1", "the tokenizer names none", "eos_token"},
               [&] { prepared(kCompletion); });
}

TEST_F(PrepareFormats, ACompletionHasTheTokenizersFrameAndOneEos) {
  const auto framed = [&](const std::string& eos) {
    Json whole = Json::parse(read_text(scratch / "bare" / "tokenizer.json"));
    const auto token = [](const char* name) { return Json{{"SpecialToken", {{"id", name}, {"type_id", 0}}}}; };
    whole["post_processor"] = {
        {"type", "TemplateProcessing"},
        {"single",
         Json::array({token("<|im_start|>"), Json{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, token("<|im_end|>")})},
        {"pair", Json::array()},
        {"special_tokens",
         {{"<|im_start|>", {{"id", "<|im_start|>"}, {"ids", {kImStart}}, {"tokens", {"<|im_start|>"}}}},
          {"<|im_end|>", {{"id", "<|im_end|>"}, {"ids", {kImEnd}}, {"tokens", {"<|im_end|>"}}}}}}};
    make_directories(scratch / "framed");
    write_text(scratch / "framed" / "tokenizer.json", whole.dump());
    write_text(scratch / "framed" / "tokenizer_config.json", "{\"eos_token\": \"" + eos + "\"}");
    tokenizer = Tokenizer::open(scratch / "framed");
    return ids_of(prepared(R"({"prompt": "a", "completion": "b"})"));
  };
  EXPECT_EQ(framed("<|im_end|>"), (std::vector<int32_t>{kImStart, 'a', 'b', kImEnd}));
  EXPECT_EQ(framed("<|im_start|>"), (std::vector<int32_t>{kImStart, 'a', 'b', kImStart, kImEnd})) << "another EOS";
}

// What the tokens of the joined text are is the tokenizer's business: one may hold the end of a prompt too.
TEST_F(PrepareFormats, ACompletionMayBeginWithinAToken) {
  const auto directory = real_path("DROVER_SMOLLM2", "smollm2");
  if (!directory) GTEST_SKIP() << "no real tokenizer";
  tokenizer = Tokenizer::open(*directory);
  const TokenStore store = prepared(R"({"prompt": "Hello ", "completion": "world"})");
  const std::vector<int32_t> joined = tokenizer.encode("Hello world");
  const auto ids = store.document(0).ids;
  EXPECT_EQ(std::vector<int32_t>(ids.begin(), ids.end() - 1), joined);
  EXPECT_EQ(ids.back(), tokenizer.eos());
  EXPECT_EQ(show(store.document(0), tokenizer, "[[", "]]"),
            "Hello[[ world⟨" + tokenizer.raw_bytes(*tokenizer.eos()) + "⟩]]");
  EXPECT_EQ(report.within_token, 1);
  prepared(R"({"prompt": "Hello", "completion": " world"})");
  EXPECT_EQ(report.within_token, 0);
}

// Cut within words and between them, as Hugging Face tokenises the whole (tests/golden/completions.py).
TEST_F(PrepareFormats, CompletionsAreTokenisedAsOneText) {
  const auto directory = real_path("DROVER_LLAMA3_TOKENIZER", "llama3-tokenizer");
  if (!directory) GTEST_SKIP() << "no real tokenizer";
  tokenizer = Tokenizer::open(*directory);
  const std::string golden = read_text(fs::path(DROVER_SOURCE_DIR) / "tests/golden/completions.jsonl");
  const TokenStore store = prepared(golden);
  int64_t within = 0, document = 0;
  for (size_t at = 0; at < golden.size(); ++document) {
    const size_t end = golden.find('\n', at);
    const Json row = Json::parse(golden.substr(at, end - at));
    at = end + 1;
    std::vector<int32_t> ids = row["ids"];
    const size_t given = row["given"];
    within += given < ids.size() && !row["as_trl"].get<bool>() ? 1 : 0;
    ids.insert(ids.begin(), *tokenizer.bos());
    ids.push_back(*tokenizer.eos());
    const Document d = store.document(document);
    ASSERT_EQ(std::vector<int32_t>(d.ids.begin(), d.ids.end()), ids) << row["name"];
    for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(d.trained[i], i > given ? 1 : 0) << row["name"] << " " << i;
  }
  EXPECT_EQ(document, store.documents());
  EXPECT_GE(document, 100);
  EXPECT_GT(report.within_token, 10);
  EXPECT_LE(report.within_token, within);
}

TEST_F(PrepareFormats, OfAPromptOfMessagesNoAnswerIsTrained) {
  const std::string lists = R"({"prompt": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "q"}],)"
                            R"( "completion": [{"role": "assistant", "content": "b"}]})";
  EXPECT_EQ(shown(lists),
            "⟨<|im_start|>⟩assistant\na⟨<|im_end|>⟩\n⟨<|im_start|>⟩user\nq⟨<|im_end|>⟩\n⟨<|im_start|>⟩assistant\n[[b⟨<|"
            "im_end|>⟩]]\n");
  settings.train_on = TrainOn::all;
  EXPECT_EQ(prepared(lists).trained_tokens(0, 1), prepared(lists).tokens() - 1);
}

TEST_F(PrepareFormats, AlpacaIsADialogOrWithoutATemplateItsOwnPrompt) {
  EXPECT_EQ(shown(kAlpaca), "⟨<|im_start|>⟩user\nAdd.\n1 2⟨<|im_end|>⟩\n⟨<|im_start|>⟩assistant\n[[3⟨<|im_end|>⟩]]\n");
  EXPECT_EQ(report.alpaca_prompts, 0);
  settings.chat.reset();
  const std::string plain = shown(kAlpaca);
  EXPECT_TRUE(plain.starts_with("Below is an instruction")) << plain;
  EXPECT_TRUE(plain.ends_with("### Input:\n1 2\n\n### Response:[[3⟨<|im_end|>⟩]]")) << plain;
  EXPECT_EQ(report.alpaca_prompts, 1);
  expect_error(Fault::bad_recipe, {"rows.jsonl:1", "data.template"},
               [&] { prepared(R"({"instruction": "x", "output": "y", "system": "s"})"); });
}

TEST_F(PrepareFormats, IdsAreTakenAsTheyAre) {
  EXPECT_EQ(shown(R"({"input_ids": [97, 98, 99, 257], "labels": [-100, -100, 99, 257]})"), "ab[[c⟨<|im_end|>⟩]]");
  EXPECT_EQ(shown(R"({"input_ids": [97, 98, 99]})"), "a[[bc]]");
  expect_error(Fault::bad_data, {"rows.jsonl:1", "258 is not in the tokenizer's vocabulary, of 258"},
               [&] { prepared(R"({"input_ids": [97, 258]})"); });
  settings.max_length = 3;
  const std::string labelled = R"({"input_ids": [97, 98, 99, 100, 101], "labels": [-100, 98, 99, 100, 101]})";
  EXPECT_EQ(prepared(labelled).documents(), 1) << "cut, as a dialog is";
  EXPECT_EQ(report.cut, 1);
  EXPECT_EQ(prepared(R"({"input_ids": [97, 98, 99, 100, 101]})").documents(), 2) << "split, as a text is";
  settings.train_on = TrainOn::all;
  expect_error(Fault::bad_data, {"\"labels\"", "data.train_on: all"}, [&] { prepared(labelled); });
}

TEST_F(PrepareFormats, ControlTokensInTextsAreLettersUnlessAskedFor) {
  const std::string rendered = "{\"text\": \"<|im_start|>user\\nq<|im_end|>\"}";
  const TokenStore letters = prepared(rendered + "\n{\"text\": \"<|im_start >\"}\n" + rendered);
  EXPECT_EQ(std::ranges::count(ids_of(letters), kImStart), 0);
  EXPECT_EQ(report.rendered, 2);
  settings.special = true;
  const TokenStore tokens = prepared(rendered);
  EXPECT_EQ(ids_of(tokens).front(), kImStart);
  EXPECT_EQ(ids_of(tokens).back(), kImEnd);
  EXPECT_EQ(tokens.tokens(), 8);
  EXPECT_EQ(report.rendered, 0);
  const std::string ended = R"({"prompt": "a", "completion": "b<|im_end|>"})";
  EXPECT_EQ(prepared(ended).tokens(), 3) << "EOS stands once";
  settings.special = false;
  EXPECT_EQ(prepared(ended).tokens(), 2 + 10 + 1);
  EXPECT_EQ(report.rendered, 1);
  // A text that writes its BOS has one.
  ending("<|im_end|>", true);
  settings.special = true;
  EXPECT_EQ(prepared(rendered).tokens(), 8);
  // In a dialog it never is one.
  const TokenStore dialog = prepared(R"({"messages": [{"role": "user", "content": "<|im_end|>"},)"
                                     R"( {"role": "assistant", "content": "a"}]})");
  EXPECT_EQ(std::ranges::count(ids_of(dialog), kImEnd), 2);
}

TEST_F(PrepareFormats, PiecesOfATextKnowTheirRow) {
  settings.max_length = 4;
  settings.sources.push_back({scratch / "b.txt"});
  write_text(scratch / "b.txt", "abcdefgh");
  const TokenStore store = prepared("{\"text\": \"0123456789\"}\n{\"text\": \"xyz\"}\n");
  std::vector<Origin> origins;
  for (int64_t d = 0; d < store.documents(); ++d) origins.push_back(store.document(d).origin);
  EXPECT_EQ(origins, (std::vector<Origin>{{0, 0}, {0, 0}, {0, 0}, {1, 0}, {2, 1}, {2, 1}}));
  EXPECT_EQ(report.formats, (std::vector<RowFormat>{RowFormat::text, RowFormat::text}));
}

TEST_F(PrepareFormats, DirectoriesAreReadInTheOrderOfTheirNames) {
  make_directories(scratch / "s");
  write_text(scratch / "s" / "b.jsonl", "{\"text\": \"bb\"}\n{\"text\": \"cc\"}\n");
  write_text(scratch / "s" / "a.jsonl", "{\"text\": \"aa\"}\n");
  settings.sources[0].path = scratch / "s";
  const TokenStore store = prepare(settings, tokenizer, report);
  EXPECT_EQ(tokenizer.decode(ids_of(store)), "aabbcc");
  settings.sources[0].path = scratch / "s/*.jsonl";
  EXPECT_EQ(store_identity(settings, tokenizer), store.identity()) << "the same files";
  write_text(scratch / "s" / "c.jsonl", "{\"text\": \"dd\"}\n");
  EXPECT_NE(store_identity(settings, tokenizer), store.identity());
  expect_error(Fault::bad_data, {"b.jsonl:2: it is a row of ids"}, [&] {
    write_text(scratch / "s" / "b.jsonl", "{\"text\": \"bb\"}\n{\"input_ids\": [1]}\n");
    prepare(settings, tokenizer, report);
  });
}

TEST_F(PrepareFormats, OfManyFilesTheFirstBadRowsAreSaid) {
  make_directories(scratch / "s");
  for (const char* name : {"a.jsonl", "b.jsonl"}) {
    std::string rows = "{\"text\": \"good\"}\n";
    for (int i = 0; i < 7; ++i) rows += "bad\n";
    write_text(scratch / "s" / name, rows);
  }
  settings.sources[0].path = scratch / "s";
  settings.bad_rows = BadRows::skip;
  prepare(settings, tokenizer, report);
  EXPECT_EQ(report.rows_skipped, 14);
  ASSERT_EQ(report.complaints.size(), 10u);
  EXPECT_NE(report.complaints[9].find("b.jsonl:4"), std::string::npos) << report.complaints[9];
}

TEST_F(PrepareFormats, NamesOfFieldsThatNoRowHasAreNoted) {
  settings.fields = {{"text", "body"}, {"weight", "w"}};
  settings.sources.push_back({scratch / "b.jsonl"});
  write_text(scratch / "b.jsonl", "{\"body\": \"xyz\"}");
  EXPECT_EQ(prepared("{\"body\": \"abc\"}").documents(), 2);
  EXPECT_EQ(report.unmet_fields, std::vector<std::string>{"w"});
}

}  // namespace
}  // namespace drover
