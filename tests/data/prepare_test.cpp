// From files to stores: what is trained, cut, split, dropped and weighted; when a store is made anew; how a sample is
// shown.
#include "data/prepare.h"

#include <gtest/gtest.h>

#include "data/loader.h"
#include "tests/base/scratch_directory.h"
#include "tests/data/made_up_tokenizer.h"

namespace drover {
namespace {

class Prepare : public testing::Test {
 protected:
  Prepare() : tokenizer(made_up_tokenizer(scratch / "tokenizer")) {
    settings.sources = {{scratch / "rows.jsonl"}};
    settings.chat = ChatTemplate{ChatTemplate::Family::chatml, std::nullopt};
    settings.packing = false;
  }
  TokenStore prepared(const std::string& rows) {
    write_text(settings.sources[0].path, rows);
    return again();
  }
  // Dialogs, and texts as a second source.
  TokenStore prepared(const std::string& rows, const std::string& texts) {
    settings.sources.resize(1);
    settings.sources.push_back({scratch / "texts.jsonl"});
    write_text(settings.sources[1].path, texts);
    return prepared(rows);
  }
  TokenStore again() {
    report = {};
    return prepare(settings, tokenizer, report);
  }
  static std::vector<int32_t> ids_of(const TokenStore& store, int64_t document) {
    const auto ids = store.document(document).ids;
    return {ids.begin(), ids.end()};
  }
  // The trained tokens of a document as text.
  std::string targets(const TokenStore& store, int64_t document) {
    const Document d = store.document(document);
    std::vector<int32_t> ids;
    for (size_t i = 0; i < d.ids.size(); ++i) {
      if (d.trained[i]) ids.push_back(d.ids[i]);
    }
    return tokenizer.decode(ids, false);
  }
  static std::string text_row(size_t length, char letter = 'x') {
    return "{\"text\": \"" + std::string(length, letter) + "\"}\n";
  }

  ScratchDirectory scratch;
  Tokenizer tokenizer;
  PrepareSettings settings;
  PrepareReport report;
};

const std::string kDialog =
    R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "one"},)"
    R"( {"role": "user", "content": "r"}, {"role": "assistant", "content": "two"}]})"
    "\n";

TEST_F(Prepare, TrainsOnWhatIsAskedFor) {
  EXPECT_EQ(targets(prepared(kDialog), 0), "one<|im_end|>two<|im_end|>");
  settings.train_on = TrainOn::last;
  EXPECT_EQ(targets(again(), 0), "two<|im_end|>");
  settings.train_on = TrainOn::all;
  const TokenStore all = again();
  EXPECT_EQ(all.trained_tokens(0, 1), all.tokens() - 1);  // all but the first
}

TEST_F(Prepare, TextStartsWithBosOnlyWhereTheTokenizerAddsOne) {
  EXPECT_EQ(ids_of(prepared(text_row(3, 'a')), 0), (std::vector<int32_t>{'a', 'a', 'a'}));
  tokenizer = made_up_tokenizer(scratch / "with-bos", true, true);
  const TokenStore store = again();
  EXPECT_EQ(ids_of(store, 0), (std::vector<int32_t>{kImStart, 'a', 'a', 'a'}));
  EXPECT_EQ(store.trained_tokens(0, 1), 3);
}

TEST_F(Prepare, LongDialogsAreCutAtTheEndAndCounted) {
  const TokenStore whole = prepared(kDialog);
  settings.max_length = whole.tokens() - 3;
  const TokenStore cut = again();
  EXPECT_EQ(report.cut, 1);
  const std::vector<int32_t> ids = ids_of(whole, 0);
  EXPECT_EQ(ids_of(cut, 0), std::vector<int32_t>(ids.begin(), ids.end() - 3));
  EXPECT_EQ(targets(cut, 0), "one<|im_end|>tw");

  settings.max_length = 4;  // nothing of an answer is left
  EXPECT_EQ(prepared(kDialog, text_row(3)).documents(), 1);
  EXPECT_EQ(report.cut, 1);
  EXPECT_EQ(report.dropped, 1);
}

TEST_F(Prepare, LongTextsAreSplitAndLoseNothing) {
  settings.max_length = 10;
  for (const int length : {2, 9, 10, 11, 12, 19, 20, 21, 22, 35, 41}) {
    std::string letters;
    for (int i = 0; i < length; ++i) letters += static_cast<char>('A' + i);
    const TokenStore store = prepared(nlohmann::json{{"text", letters}}.dump());
    EXPECT_EQ(report.split, length > 10 ? 1 : 0);
    EXPECT_EQ(report.dropped, 0);
    std::vector<int32_t> joined;
    for (int64_t d = 0; d < store.documents(); ++d) {
      const std::vector<int32_t> ids = ids_of(store, d);
      EXPECT_LE(ids.size(), 10u);
      EXPECT_GE(ids.size(), 2u);
      joined.insert(joined.end(), ids.begin(), ids.end());
    }
    EXPECT_EQ(tokenizer.decode(joined), letters);
  }
}

TEST_F(Prepare, RowsWithNothingToTrainOnAreDroppedAndCounted) {
  const std::string question = R"({"messages": [{"role": "user", "content": "q"}]})"
                               "\n";
  const TokenStore store = prepared(question, text_row(0) + text_row(1) + text_row(2));
  EXPECT_EQ(report.rows_read, 4);
  EXPECT_EQ(report.dropped, 3);
  EXPECT_EQ(store.documents(), 1);
  settings.sources.resize(1);
  expect_error(Fault::bad_data, {"rows.jsonl", "no token to train on", "2 rows read", "data.train_on"},
               [&] { prepared(question + question); });
  expect_error(Fault::bad_data, {"rows.jsonl", "no token to train on"}, [&] { prepared(""); });
}

TEST_F(Prepare, EveryGlobalBatchHasATrainedToken) {
  std::string rows, texts;
  for (size_t i = 0; i < 40; ++i) {
    rows += R"({"messages": [{"role": "user", "content": "no answer"}]})"
            "\n";
    texts += text_row(1 + i % 5);
  }
  const TokenStore store = prepared(rows, texts);
  const Loader loader(store, {1, 1, true, 9, 0, 1});
  for (int64_t step = 0; step < 2 * loader.steps_per_epoch(); ++step)
    EXPECT_GT(loader.load(loader.position_of(step)).weight_sum, 0);
}

TEST_F(Prepare, WeightsOfSourcesWeighTheirTokens) {
  settings.sources.push_back({scratch / "heavy.jsonl", RowFormat::automatic, 2.5});
  write_text(settings.sources[1].path, text_row(5));
  const TokenStore store = prepared(text_row(4));
  EXPECT_EQ(store.document(0).weight, 1.0f);
  EXPECT_EQ(store.document(1).weight, 2.5f);
  const std::vector<int64_t> rows = {0, 1};
  const Batch batch = batch_of_rows(store, rows, 2, 0, 1);
  EXPECT_EQ(batch.weight_sum, 3 * 1 + 4 * 2.5);
  EXPECT_EQ(batch.trained_tokens, 7);
  EXPECT_EQ(batch.micro_batches.at(0).weights, (std::vector<float>{1, 1, 1, 0, 2.5f, 2.5f, 2.5f, 2.5f, 0}));
}

TEST_F(Prepare, BadRowsOfTheTemplateAreNamed) {
  const std::string narrator = R"({"messages": [{"role": "narrator", "content": "q"}]})";
  expect_error(Fault::bad_data, {"rows.jsonl:2:", "narrator"}, [&] { prepared(kDialog + narrator); });
  settings.bad_rows = BadRows::skip;
  EXPECT_EQ(again().documents(), 1);
  EXPECT_EQ(report.rows_skipped, 1);
  ASSERT_EQ(report.complaints.size(), 1u);
  EXPECT_NE(report.complaints[0].find("rows.jsonl:2:"), std::string::npos);
}

TEST_F(Prepare, ATemplateThatNoDialogCanUseIsNotSkipped) {
  settings.bad_rows = BadRows::skip;
  settings.chat.reset();
  expect_error(Fault::bad_recipe, {"rows.jsonl:1:", "data.template", "chatml"},
               [&] { prepared(kDialog, text_row(9)); });
  settings.sources.resize(1);
  EXPECT_EQ(prepared(text_row(9)).documents(), 1);
  settings.chat = ChatTemplate{ChatTemplate::Family::chatml, std::nullopt};
  tokenizer = made_up_tokenizer(scratch / "bare", false);
  EXPECT_EQ(again().documents(), 1);
  expect_error(Fault::bad_recipe, {"rows.jsonl:1:", "<|im_start|>", "data.template"}, [&] { prepared(kDialog); });
}

TEST_F(Prepare, IdentityChangesWithAllThatShapesRows) {
  const fs::path file = scratch / "train.h5";
  const std::string identity = store_identity((prepared(kDialog).save(file), settings), tokenizer);
  EXPECT_TRUE(TokenStore::matches(file, identity));
  const auto changes = [&](const std::string& what, auto&& change) {
    PrepareSettings other = settings;
    change(other);
    EXPECT_FALSE(TokenStore::matches(file, store_identity(other, tokenizer))) << what;
  };
  changes("template", [](auto& s) { s.chat = ChatTemplate{ChatTemplate::Family::chatml, "Be brief."}; });
  changes("no template", [](auto& s) { s.chat.reset(); });
  changes("date", [](auto& s) { s.date = "1 Jan 2025"; });
  changes("train_on", [](auto& s) { s.train_on = TrainOn::all; });
  changes("max_length", [](auto& s) { ++s.max_length; });
  changes("packing", [](auto& s) { s.packing = !s.packing; });
  changes("bad_rows", [](auto& s) { s.bad_rows = BadRows::skip; });
  changes("format", [](auto& s) { s.sources[0].format = RowFormat::messages; });
  changes("weight", [](auto& s) { s.sources[0].weight = 2; });
  changes("repeat", [](auto& s) { s.sources[0].repeat = 2; });
  changes("fields", [](auto& s) { s.fields = {{"text", "body"}}; });
  changes("special", [](auto& s) { s.special = true; });
  changes("twice", [](auto& s) { s.sources.push_back(s.sources[0]); });
  EXPECT_FALSE(TokenStore::matches(
      file, store_identity(settings, made_up_tokenizer(scratch / "other", true, false, "<|spare|>"))));

  std::string changed = kDialog;  // same size
  changed[changed.find("one")] = 'O';
  write_text(settings.sources[0].path, changed);
  EXPECT_FALSE(TokenStore::matches(file, store_identity(settings, tokenizer)));
  fs::rename(settings.sources[0].path, scratch / "moved.jsonl");  // where it lies is no matter
  settings.sources[0].path = scratch / "moved.jsonl";
  write_text(settings.sources[0].path, kDialog);
  EXPECT_TRUE(TokenStore::matches(file, store_identity(settings, tokenizer)));
}

TEST_F(Prepare, DataThatChangesMeanwhileIsNoticed) {
  settings.sources.push_back({"/proc/sys/kernel/random/uuid"});  // reads otherwise every time
  expect_error(Fault::io, {"rows.jsonl", "changed while it was read"}, [&] { prepared(text_row(4)); });
}

TEST_F(Prepare, TwoPreparationsAreTheSame) {
  settings.packing = true;
  settings.max_length = 64;
  std::string rows;
  for (size_t i = 1; i < 200; ++i) rows += text_row(1 + i * 37 % 50, static_cast<char>('a' + i % 26));
  prepared(rows).save(scratch / "a.h5");
  again().save(scratch / "b.h5");
  EXPECT_EQ(read_text(scratch / "a.h5"), read_text(scratch / "b.h5"));
}

TEST_F(Prepare, ASampleShowsItsTrainedTokens) {
  const TokenStore store =
      prepared(R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "é"}]})");
  EXPECT_EQ(show(store.document(0), tokenizer, "[[", "]]"),
            "⟨<|im_start|>⟩user\nq⟨<|im_end|>⟩\n⟨<|im_start|>⟩assistant\n[[é⟨<|im_end|>⟩]]\n");
}

// What a row says of its weight, of turns that are not to be learnt and of calls is obeyed, or refused.
TEST_F(Prepare, RowsAreObeyed) {
  settings.sources[0].weight = 2;
  const std::string row = R"({"weight": 0.5, "id": 1, "messages": [{"role": "user", "content": "q", "name": "ann"},)"
                          R"( {"role": "assistant", "content": "bad", "weight": 0},)"
                          R"( {"role": "assistant", "content": "good"}]})";
  const std::string unwanted = R"({"weight": 0, "messages": [{"role": "user", "content": "q"},)"
                               R"( {"role": "assistant", "content": "x"}]})";
  const TokenStore store = prepared(row + "\n" + unwanted);
  ASSERT_EQ(store.documents(), 1);
  EXPECT_EQ(targets(store, 0), "good<|im_end|>");
  EXPECT_EQ(store.document(0).weight, 1.0f);
  EXPECT_EQ(report.dropped, 1);
  EXPECT_EQ(report.ignored, (std::map<std::string, int64_t>{{"id", 1}, {"messages.name", 1}}));
  settings.train_on = TrainOn::all;
  expect_error(Fault::bad_data, {"rows.jsonl:1", "data.train_on: all"}, [&] { prepared(row); });
  settings.train_on = TrainOn::assistant;
  const std::string call = R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls":)"
                           R"( [{"function": {"name": "f", "arguments": {}}}]}]})";
  expect_error(Fault::bad_data, {"rows.jsonl:1", "\"tool_calls\"", "chatml"}, [&] { prepared(call); });
  const std::string tools = R"({"tools": [{"type": "function"}], "messages": [{"role": "user", "content": "q"},)"
                            R"( {"role": "assistant", "content": "x"}]})";
  expect_error(Fault::bad_data, {"rows.jsonl:1", "\"tools\"", "chatml"}, [&] { prepared(tools); });
}

TEST_F(Prepare, AnswersBehindTheLimitNameIt) {
  settings.max_length = 12;
  expect_error(Fault::bad_data, {"2 of 2 rows", "data.max_length, 12"}, [&] { prepared(kDialog + kDialog); });
  prepared(kDialog, text_row(5));
  EXPECT_EQ(report.cut_before_answers, 1);
  EXPECT_EQ(report.dropped, 1);
}

TEST_F(Prepare, TheModelsOwnTemplateWritesCalls) {
  write_text(scratch / "tokenizer" / "chat_template.jinja",
             "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
             "{% if loop.last %}{{ m.thinking }}{% endif %}{{ m.content or '' }}"
             "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}"
             "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
  settings.chat = ChatTemplate::find(scratch / "tokenizer");
  const TokenStore store =
      prepared(R"({"tools": [{"name": "f"}], "messages": [{"role": "user", "content": "q"}, {"role": "assistant",)"
               R"( "content": null, "tool_calls": [{"function": {"name": "f", "arguments": "{\"x\": 1}"}}]},)"
               R"( {"role": "tool", "content": "2"},)"
               R"( {"role": "assistant", "content": "two", "thinking": "hm "}]})");
  EXPECT_EQ(tokenizer.decode(ids_of(store, 0), false),
            "{\"name\": \"f\"}<|im_start|>user\nq<|im_end|><|im_start|>assistant\nf({\"x\": 1})<|im_end|>"
            "<|im_start|>tool\n2<|im_end|><|im_start|>assistant\nhm two<|im_end|>");
  EXPECT_EQ(targets(store, 0), "f({\"x\": 1})<|im_end|>hm two<|im_end|>");
  EXPECT_EQ(report.rewritten, 0);
  prepared(R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "thinking": "t"},)"
           R"( {"role": "user", "content": "r"}, {"role": "assistant", "content": "b", "thinking": "u"}]})");
  EXPECT_EQ(report.rewritten, 1) << "its thinking is cut once a turn follows";
}

}  // namespace
}  // namespace drover
