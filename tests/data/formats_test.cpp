// The formats of rows: what shows each, what it becomes, what is refused by name, and our names for the file's fields.
#include <gtest/gtest.h>

#include "data/rows.h"
#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

class Formats : public testing::Test {
 protected:
  std::vector<Row> read(const std::string& text, RowFormat format = RowFormat::automatic, FieldNames fields = {}) {
    write_text(file, text);
    std::vector<Row> rows;
    RowReader reader(format, std::move(fields));
    report = read_rows(file, reader, BadRows::error, [&](const Row& row) { rows.push_back(row); });
    taken = reader.format();
    return rows;
  }
  // The dialog as "role: content" lines; calls as JSON.
  std::string dialog(const std::string& text, RowFormat format = RowFormat::automatic, FieldNames fields = {}) {
    std::string out;
    const Row row = read(text, format, std::move(fields)).at(0);
    for (const Message& m : row.messages) {
      out += m.role + ": " + m.content;
      if (!m.more.is_null() && m.more.contains("tool_calls")) out += m.more["tool_calls"].dump();
      out += m.train ? "\n" : " (not trained)\n";
    }
    return out;
  }
  void refuse(const std::string& row, const std::vector<std::string>& words, RowFormat format = RowFormat::automatic,
              FieldNames fields = {}) {
    std::vector<std::string> all = words;
    all.push_back(file.string() + ":1: ");
    expect_error(Fault::bad_data, all, [&] { read(row, format, std::move(fields)); });
  }

  ScratchDirectory scratch;
  fs::path file = scratch / "rows.jsonl";
  ReadReport report;
  RowFormat taken = RowFormat::automatic;
};
using Ignored = std::map<std::string, int64_t>;

TEST_F(Formats, AutoTakesWhatTheFieldsSay) {
  const std::vector<std::pair<RowFormat, std::string>> rows = {
      {RowFormat::messages, R"({"messages": [{"role": "user", "content": "q"}], "prompt": "q", "text": "q"})"},
      {RowFormat::sharegpt, R"({"id": "1", "conversations": [{"from": "human", "value": "q"}]})"},
      {RowFormat::alpaca, R"({"instruction": "i", "input": "", "output": "o", "text": "all"})"},
      {RowFormat::prompt_completion, R"({"prompt": "p", "completion": "c"})"},
      {RowFormat::ids, R"({"input_ids": [1, 2], "text": "x"})"},
      {RowFormat::text, R"({"text": "x", "completion": "c"})"}};
  for (const auto& [format, row] : rows) {
    EXPECT_EQ(read(row).size(), 1u);
    EXPECT_EQ(taken, format) << row;
    EXPECT_EQ(read(row, format).size(), 1u);
  }
  read(rows[0].second);
  EXPECT_EQ(report.ignored, (Ignored{{"prompt", 1}, {"text", 1}})) << "what is not read is said";
}

TEST_F(Formats, ARowOfNoneAndARowOfTwoAreRefused) {
  refuse(R"({"question": "q", "answer": "a"})", {"it has \"question\", \"answer\", and a row needs \"messages\", or",
                                                 "\"prompt\" and \"completion\"", "data.fields"});
  refuse("{}", {"it has nothing"});
  const std::string preferences = R"({"chosen": [{"role": "user", "content": "q"}], "rejected": []})";
  refuse(preferences, {"no training by preferences", "{messages: chosen}"});
  EXPECT_EQ(dialog(preferences, RowFormat::automatic, {{"messages", "chosen"}}), "user: q\n");
  EXPECT_EQ(report.ignored, (Ignored{{"rejected", 1}}));
  refuse(R"({"prompt": "p", "completion": "c", "label": false})", {"\"label\" is not supported"});
  refuse(R"({"messages": [], "input_ids": [1]})", {"\"messages\" and \"input_ids\"", "messages or ids"});
  EXPECT_EQ(read(R"({"messages": [], "input_ids": [1]})", RowFormat::ids).size(), 1u);
}

TEST_F(Formats, RowsOfSeveralAreRefusedAtTheFirstThatDiffers) {
  const std::string text = R"({"text": "x"})", alpaca = R"({"instruction": "i", "output": "o"})";
  expect_error(Fault::bad_data,
               {"rows.jsonl:3: it is a row of alpaca, and the rows before it are of text", "data.format"},
               [&] { read(text + "\n" + text + "\n" + alpaca + "\n" + text); });
  const std::string both = R"({"text": "x", "instruction": "i", "output": "o"})";
  EXPECT_EQ(read(both + "\n" + text, RowFormat::text).size(), 2u) << "where every row has what is asked for";
  // Over the files of a path too.
  RowReader reader;
  const auto use = [](const Row&) {};
  write_text(scratch / "a.jsonl", text);
  write_text(scratch / "b.jsonl", alpaca);
  read_rows(scratch / "a.jsonl", reader, BadRows::error, use);
  expect_error(Fault::bad_data, {"b.jsonl:1: it is a row of alpaca"},
               [&] { read_rows(scratch / "b.jsonl", reader, BadRows::error, use); });
  EXPECT_EQ(read_rows(scratch / "b.jsonl", reader, BadRows::skip, use).skipped, 1);
}

TEST_F(Formats, ShareGpt) {
  EXPECT_EQ(dialog(R"({"system": "s", "tools": "[{\"name\": \"f\"}]", "conversations": [)"
                   R"({"from": "human", "value": "q"},)"
                   R"({"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": 2}}"},)"
                   R"({"from": "observation", "value": "3"}, {"from": "gpt", "value": "bad", "weight": 0},)"
                   R"({"from": "tool", "value": "4"}, {"from": "assistant", "value": "a"}]})"),
            "system: s\nuser: q\n"
            "assistant: [{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"b\":1,\"a\":2}}}]\n"
            "tool: 3\nassistant: bad (not trained)\ntool: 4\nassistant: a\n");
  EXPECT_EQ(taken, RowFormat::sharegpt);
  EXPECT_EQ(
      read(R"({"tools": "[{\"name\": \"f\"}]", "conversations": [{"from": "user", "value": "q"}]})").at(0).tools.dump(),
      R"([{"name":"f"}])");
  EXPECT_EQ(
      dialog(R"({"conversations": [{"from": "system", "value": "s"}, {"role": "user", "content": "q"},)"
             R"({"role": "gpt", "content": [{"type": "text", "text": "a"}]}, {"role": "critic", "content": "c"}]})"),
      "system: s\nuser: q\nassistant: a\ncritic: c\n");
  refuse(
      R"({"conversations": [{"from": "narrator", "value": "x"}]})",
      {"\"from\" is \"narrator\"; allowed are human, user, gpt, assistant, system, tool, observation, function_call"});
  refuse(R"({"conversations": []})", {"\"conversations\" must be a list with at least one turn"});
  refuse(R"({"conversations": ["hello"]})", {"a turn needs \"from\" and \"value\""});
  refuse(R"({"conversations": [{"from": "gpt", "role": "assistant", "value": "x"}]})", {"a turn needs"});
  refuse(R"({"conversations": [{"from": "gpt", "content": "x"}]})", {"a turn needs"});
  refuse(R"({"conversations": [{"from": "gpt"}]})", {"\"content\""});
  refuse(R"({"conversations": [{"from": "function_call", "value": "f 1"}]})", {"the value of a function_call", "JSON"});
  refuse(R"({"conversations": [{"from": "function_call", "value": "[3]"}]})", {"\"tool_calls\""});
  refuse(R"({"system": "s", "conversations": [{"from": "system", "value": "t"}]})",
         {"\"system\", and its dialog begins"});
}

TEST_F(Formats, ASystemNextToMessagesIsTheirFirst) {
  EXPECT_EQ(dialog(R"({"system": "s", "messages": [{"role": "user", "content": "q"}]})"), "system: s\nuser: q\n");
  EXPECT_EQ(dialog(R"({"system": null, "messages": [{"role": "user", "content": "q"}]})"), "user: q\n");
  refuse(R"({"system": 3, "messages": [{"role": "user", "content": "q"}]})", {"\"system\" must be a string"});
  refuse(R"({"system": "s", "messages": [{"role": "system", "content": "q"}]})", {"begins with a system message"});
}

TEST_F(Formats, Alpaca) {
  EXPECT_EQ(dialog(R"({"instruction": "Add.", "input": "1 2", "output": "3"})"), "user: Add.\n1 2\nassistant: 3\n");
  EXPECT_EQ(dialog(R"({"instruction": "Go.", "input": "", "output": "ok"})"), "user: Go.\nassistant: ok\n");
  EXPECT_EQ(dialog(R"({"instruction": "", "input": "1 2", "output": "3"})"), "user: 1 2\nassistant: 3\n");
  EXPECT_EQ(dialog(R"({"instruction": "Go.", "output": "ok", "system": "s", "history": [["q", "a"], ["r", "b"]]})"),
            "system: s\nuser: q\nassistant: a\nuser: r\nassistant: b\nuser: Go.\nassistant: ok\n");
  const Row plain = read(R"({"instruction": "Add.", "input": "1 2", "output": "3", "history": []})").at(0);
  EXPECT_EQ(
      plain.prompt,
      "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
      "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### "
      "Response:");
  EXPECT_EQ(plain.text, "3");
  EXPECT_EQ(read(R"({"instruction": "Go.", "output": "ok"})").at(0).prompt,
            "Below is an instruction that describes a task. Write a response that appropriately completes the "
            "request.\n\n### Instruction:\nGo.\n\n### Response:");
  for (const char* more : {R"("system": "s")", R"("history": [["q", "a"]])", R"("tools": [{"name": "f"}])"}) {
    EXPECT_FALSE(read(R"({"instruction": "Go.", "output": "ok", )" + std::string(more) + "}").at(0).prompt) << more;
  }
  refuse(R"({"instruction": "", "input": "", "output": "ok"})", {"are both empty"});
  refuse(R"({"instruction": "x", "output": null})", {"\"output\" must be a string"});
  refuse(R"({"instruction": ["x"], "output": "x"})", {"\"instruction\" must be a string"});
  refuse(R"({"instruction": "x", "output": "x", "history": [["a"]]})",
         {"\"history\" must be a list of [question, answer]"});
}

TEST_F(Formats, PromptAndCompletion) {
  const Row row = read(R"({"prompt": "1 + 1 =", "completion": " 2", "source": "x"})").at(0);
  EXPECT_EQ(row.prompt, "1 + 1 =");
  EXPECT_EQ(row.text, " 2");
  EXPECT_EQ(report.ignored, (Ignored{{"source", 1}}));
  const std::string lists = R"({"system": "s", "prompt": [{"role": "user", "content": "q"}, {"role": "assistant",)"
                            R"( "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]})";
  EXPECT_EQ(dialog(lists), "system: s\nuser: q\nassistant: a\nassistant: b\n");
  EXPECT_EQ(read(lists).at(0).given, 3u);
  refuse(R"({"prompt": "x", "completion": [{"role": "assistant", "content": "b"}]})", {"two strings, or two lists"});
  refuse(R"({"prompt": "x", "completion": null})", {"two strings, or two lists"});
  refuse(R"({"prompt": [], "completion": [{"role": "assistant", "content": "b"}]})", {"\"prompt\" must be a list"});
  refuse(R"({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "user", "content": "b"}]})",
         {"no message of the assistant"});
  refuse(R"({"prompt": "x", "completion": "y", "system": "s"})", {"\"system\" needs"});
}

TEST_F(Formats, IdsAndLabels) {
  const Row row = read(R"({"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "attention_mask": [1, 1, 1]})").at(0);
  EXPECT_EQ(row.ids, (std::vector<int32_t>{5, 6, 7}));
  EXPECT_EQ(row.trained, (std::vector<uint8_t>{0, 1, 1}));
  EXPECT_FALSE(read(R"({"input_ids": [5, 6], "position_ids": [0, 1]})").at(0).trained);
  refuse(R"({"input_ids": []})", {"\"input_ids\" is empty"});
  refuse(R"({"input_ids": "1 2"})", {"list of whole numbers"});
  refuse(R"({"input_ids": [1, 2.5]})", {"element 2 of \"input_ids\" is no whole number"});
  refuse(R"({"input_ids": [-1]})", {"the id -1 is in no vocabulary"});
  refuse(R"({"input_ids": [4294967296]})", {"the id 4294967296 is in no vocabulary"});
  refuse(R"({"input_ids": [18446744073709551615]})", {"element 1"});
  refuse(R"({"input_ids": [1, 2], "labels": [1]})", {"\"labels\" has 1 elements, and \"input_ids\" has 2"});
  refuse(R"({"input_ids": [1, 2], "labels": [2, -100]})", {"element 1 of \"labels\" is 2", "-100"});
  refuse(R"({"input_ids": [1, 2], "attention_mask": [1, 0]})", {"element 2 of \"attention_mask\" is 0", "padding"});
  refuse(R"({"input_ids": [1, 2], "position_ids": [0, 0]})", {"element 2 of \"position_ids\" is 0"});
}

TEST_F(Formats, WeightsAreOfEveryFormat) {
  for (const std::string row :
       {R"({"text": "x")", R"({"input_ids": [1])", R"({"prompt": "x", "completion": "y")",
        R"({"instruction": "i", "output": "o")", R"({"conversations": [{"from": "human", "value": "q"}])"}) {
    EXPECT_EQ(read(row + R"(, "weight": 0.5})").at(0).weight, 0.5f);
    EXPECT_EQ(read(row + R"(, "train": false, "loss": null})").at(0).weight, 0.0f);
    refuse(row + R"(, "images": ["a.png"]})", {"\"images\" is not supported"});
  }
}

TEST_F(Formats, OurNamesForTheFilesFields) {
  EXPECT_EQ(read(R"({"body": "x", "text": "a title"})", RowFormat::automatic, {{"text", "body"}}).at(0).text, "x");
  EXPECT_EQ(taken, RowFormat::text);
  EXPECT_EQ(report.ignored, (Ignored{{"text", 1}})) << "the file's own \"text\" is another thing";
  EXPECT_EQ(dialog(R"({"instruction": "out", "output": "in"})", RowFormat::automatic,
                   {{"instruction", "output"}, {"output", "instruction"}}),
            "user: in\nassistant: out\n");
  EXPECT_EQ(dialog(R"({"dialog": [{"who": "user", "said": "q", "role": "x"}, {"who": "assistant", "said": "a"}]})",
                   RowFormat::automatic, {{"messages", "dialog"}, {"role", "who"}, {"content", "said"}}),
            "user: q\nassistant: a\n");
  EXPECT_EQ(report.ignored, (Ignored{{"messages.role", 1}}));
  EXPECT_EQ(dialog(R"({"messages": [{"role": "user", "content": "q"}]})", RowFormat::automatic, {{"text", "content"}}),
            "user: q\n")
      << "a name of rows is none of turns";
  refuse(R"({"content": "x"})", {"it has no \"text\", which data.format: text asks for"}, RowFormat::text);
  RowReader reader(RowFormat::automatic, {{"text", "body"}, {"weight", "w"}});
  reader.read(R"({"body": "x"})");
  EXPECT_TRUE(reader.met(0));
  EXPECT_FALSE(reader.met(1));
}

}  // namespace
}  // namespace drover
