// Reading data files: line ends, marks, half lines, hostile bytes; each bad row named by file and line, or counted.
#include "data/rows.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include "data/gzip.h"
#include "kernels/base/file.h"
#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

class Rows : public testing::Test {
 protected:
  ScratchDirectory scratch;
  fs::path file = scratch / "rows.jsonl";

  std::vector<Row> read(const std::string& text, RowFormat format = RowFormat::automatic,
                        BadRows bad = BadRows::error) {
    write_text(file, text);
    std::vector<Row> rows;
    report = read_rows(file, format, bad, [&](const Row& row) { rows.push_back(row); });
    return rows;
  }
  ReadReport report;
};

const std::string kGood = "{\"text\": \"good\"}";

TEST_F(Rows, AreReadWhateverTheLineEndings) {
  write_text(file,
             "\xEF\xBB\xBF{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\r\n\n  \n{\"messages\": "
             "[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"b\"}]}]}");
  std::vector<Row> rows;
  read_rows(file, RowFormat::automatic, BadRows::error, [&](const Row& row) { rows.push_back(row); });
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].messages.at(0).content, "a");
  EXPECT_EQ(rows[1].messages.at(0).content, "b");
  EXPECT_EQ(rows[1].line, 4);
}

// What was read of a long file leaves the process; a bad last row is still found in it.
TEST_F(Rows, OfALongFileComeInOrder) {
  constexpr size_t kRows = 100000;
  for (const bool list : {false, true}) {
    std::string text = list ? "[" : "";
    for (size_t i = 0; i < kRows; ++i) {
      if (i > 0) text += list ? ",\n" : "\n";
      text += fmt::format("{{\"text\": \"{:0>80}\"}}", i);
    }
    const std::vector<Row> rows = read(text + (list ? "]" : "\n"));
    ASSERT_EQ(rows.size(), kRows);
    for (size_t i = 0; i < kRows; i += 997) ASSERT_EQ(rows[i].text, fmt::format("{:0>80}", i));
    if (list) continue;
    expect_error(Fault::bad_data, {fmt::format("{}:{}: ", file.string(), kRows + 1)}, [&] { read(text + "\n{}"); });
  }
}

TEST_F(Rows, BadOnesAreNamedOrSkipped) {
  for (const std::string bad :
       {"{\"text\": 3}", "{}", "[1]", "3", "nonsense", "{\"messages\": []}", "{\"messages\": {}}",
        "{\"messages\": [3]}", "{\"messages\": [{\"role\": \"user\"}]}", "{\"messages\": [{\"content\": \"x\"}]}",
        "{\"messages\": [{\"role\": 1, \"content\": \"x\"}]}", "{\"text\": \"x",
        "{\"text\": \"x\"} {\"text\": \"y\"}"}) {
    const std::string text = kGood + "\n" + bad + "\n" + kGood + "\n";
    expect_error(Fault::bad_data, {file.string() + ":2: ", "data.bad_rows: skip"}, [&] { read(text); });
    EXPECT_EQ(read(text, RowFormat::automatic, BadRows::skip).size(), 2u);
    EXPECT_EQ(report.rows, 2);
    EXPECT_EQ(report.skipped, 1);
  }
}

// OpenAI's rows: what they say is kept, or refused by name.
TEST_F(Rows, CallsToolsAndWeights) {
  const std::string text =
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null, "tool_calls": [)"
      R"({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": [2]}"}}]}, )"
      R"({"role": "tool", "tool_call_id": "c1", "content": "3"}, {"role": "assistant", "content": "so", "weight": 0}],)"
      R"( "tools": [{"type": "function"}], "weight": 2.5, "id": 7, "source": "x", "tags": null})";
  const std::vector<Row> rows = read(text + "\n" + text);
  ASSERT_EQ(rows.size(), 2u);
  const std::vector<Message>& m = rows[0].messages;
  EXPECT_EQ(m[1].more["tool_calls"][0]["function"]["arguments"].dump(), R"({"b":1,"a":[2]})") << "in the row's order";
  EXPECT_TRUE(m[1].more["content"].is_null() && m[1].train);
  EXPECT_EQ(m[2].more.dump(), R"({"tool_call_id":"c1"})");
  EXPECT_FALSE(m[3].train);
  EXPECT_TRUE(m[3].more.is_null());
  EXPECT_EQ(rows[0].tools.dump(), R"([{"type":"function"}])");
  EXPECT_EQ(rows[0].weight, 2.5f);
  EXPECT_EQ(report.ignored, (std::map<std::string, int64_t>{{"id", 2}, {"source", 2}}));
  EXPECT_FALSE(
      read(R"({"messages": [{"role": "assistant", "content": "x", "train": false}]})").at(0).messages[0].train);
  EXPECT_FALSE(read(R"({"messages": [{"role": "assistant", "content": "x", "loss": false}]})").at(0).messages[0].train);
}

TEST_F(Rows, WhatCannotBeHonouredIsRefusedByName) {
  const auto refuse = [&](const std::string& row, const std::string& field) {
    expect_error(Fault::bad_data, {file.string() + ":1: ", field}, [&] { read(row); });
  };
  const auto message = [](const std::string& role, const std::string& more) {
    return R"({"messages": [{"role": ")" + role + R"(", "content": "x", )" + more + "}]}";
  };
  refuse(message("assistant", R"("function_call": {"name": "f"})"), "\"function_call\" is not supported; write");
  refuse(message("user", R"("images": ["a.png"])"), "\"images\" is not supported");
  refuse(message("assistant", R"("weight": 0.5)"), "the \"weight\" of a message may be 0 or 1");
  refuse(message("assistant", R"("weight": "1")"), "\"weight\" must be a number");
  refuse(message("assistant", R"("train": 1)"), "\"train\" of a message must be true or false");
  refuse(message("user", R"("train": true)"), "only the assistant's are learnt");
  refuse(message("assistant", R"("tool_calls": 3)"), "\"tool_calls\" must be a list");
  refuse(message("assistant", R"("tool_calls": [{"name": "f"}])"), "a call of \"tool_calls\" is not");
  refuse(message("assistant", R"("tool_calls": [{"function": {"name": "f", "arguments": "{"}}])"), "\"arguments\"");
  refuse(message("assistant", R"("tool_calls": [{"function": {"name": "f", "arguments": "3"}}])"), "\"arguments\"");
  refuse(R"({"text": "x", "functions": [{"name": "f"}]})", "\"functions\" is not supported; write \"tools\"");
  refuse(R"({"text": "x", "chat_template_kwargs": {"enable_thinking": false}})", "\"chat_template_kwargs\"");
  refuse(R"({"text": "x", "weight": 11})", "from 0 to 10");
  refuse(R"({"text": "x", "weight": -1})", "from 0 to 10");
  refuse(message("user", R"("name": "ann"}], "tools": {}, "more": [{"a": 1)"), "\"tools\" must be a list");
  refuse(R"({"text": "x", "train": 1})", "\"train\" of a row must be true or false");
  refuse(R"({"text": "x", "text": "y"})", "stands twice");
}

// A file that is no file of rows is said to be what it is, whatever data.bad_rows says.
TEST_F(Rows, OtherKindsOfFilesAreNamed) {
  const auto refuse = [&](const std::string& bytes, const std::vector<std::string>& words) {
    for (const BadRows bad : {BadRows::error, BadRows::skip}) {
      std::vector<std::string> all = words;
      all.push_back(file.string() + ": is ");
      expect_error(Fault::bad_data, all, [&] { read(bytes, RowFormat::automatic, bad); });
    }
  };
  refuse("BZh91AY", {"compressed by bzip2", "bunzip2 --keep"});
  refuse("\x28\xB5\x2F\xFD\x01", {"compressed by zstd", "zstd -d"});
  refuse("\xFD\x37zXZ", {"compressed by xz", "xz -dk"});
  refuse("PAR1xxxx", {"a Parquet table", "read_parquet", "lines=True"});
  refuse("\xFF\xFE{\0", {"UTF-16", "iconv -f UTF-16"});
  refuse(std::string("{\0\"\0", 4), {"UTF-16", "UTF-16LE"});
  refuse("PK\x03\x04", {"a zip archive"});
  refuse(std::string("[\0{\0", 4), {"UTF-16", "UTF-16LE"});
  refuse("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", {"a Git LFS pointer", "git lfs pull"});
}

TEST_F(Rows, AListIsAFileOfRows) {
  const std::vector<Row> rows = read(
      "\xEF\xBB\xBF \r\n[\r\n  {\"text\": \"a ] , [ \\\" }\"},\n  {\n    \"text\":\n    "
      "\"b\"\n  }\n,{\"text\": \"c\"}]\n\n");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].text, "a ] , [ \" }");
  EXPECT_EQ(rows[1].text, "b");
  EXPECT_EQ(rows[1].line, 4);
  EXPECT_EQ(rows[2].line, 8);
  EXPECT_TRUE(read("[]").empty());
  EXPECT_TRUE(read(" [ \n ] \n").empty());
  EXPECT_EQ(read("[" + kGood + "," + kGood + "]").size(), 2u);
}

TEST_F(Rows, AListsElementsAreNamedByNumberAndLine) {
  const auto refuse = [&](const std::string& text, const std::vector<std::string>& words) {
    expect_error(Fault::bad_data, words, [&] { read(text); });
  };
  refuse("[\n" + kGood + ",\n{\"text\": 3}\n]", {"rows.jsonl:3: element 2: \"text\" must be a string", "bad_rows"});
  refuse("[" + kGood + ",\n{\n\"text\":\n\"x\" 3}]", {"rows.jsonl:4: element 2: it is not valid JSON (at byte"});
  refuse("[" + kGood + ",\n]", {"rows.jsonl:2: element 2: "});
  refuse("[" + kGood + " " + kGood + "]", {"rows.jsonl:1: element 1: it is not valid JSON"});
  refuse("[3]", {"rows.jsonl:1: element 1: a row is an object"});
  EXPECT_EQ(read("[" + kGood + ",{},\n3,nonsense," + kGood + "]", RowFormat::automatic, BadRows::skip).size(), 2u);
  EXPECT_EQ(report.skipped, 3);
  // Where the list itself is broken, no row behind it can be found.
  for (const BadRows bad : {BadRows::error, BadRows::skip}) {
    const auto broken = [&](const std::string& text, const std::vector<std::string>& words) {
      expect_error(Fault::bad_data, words, [&] { read(text, RowFormat::automatic, bad); });
    };
    broken("\n[" + kGood + ",\n" + kGood, {"rows.jsonl:3: element 2 of the list", "does not end", "line 2"});
    broken("[", {"rows.jsonl:1: element 1", "does not end"});
    broken("[" + kGood + ",\n{\"text\": \"x}," + kGood + "]", {"rows.jsonl:2: element 2", "quote"});
    broken("[" + kGood + "]\n" + kGood, {"rows.jsonl:2: more follows the end of the list"});
    broken("[\"a\"]\n[\"b\"]\n", {"rows.jsonl:"});
  }
}

std::string gzipped(const std::string& text) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(text.size() + 1000, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

TEST_F(Rows, GzipIsReadByItsContent) {
  EXPECT_EQ(read(gzipped("\xEF\xBB\xBF" + kGood + "\r\n" + kGood + "\n")).size(), 2u);
  EXPECT_EQ(read(gzipped(kGood + "\n") + gzipped(kGood + "\n")).size(), 2u) << "members follow each other";
  EXPECT_EQ(read(gzipped("[" + kGood + "]") + std::string(512, '\0')).size(), 1u) << "zeros fill up the last block";
  EXPECT_TRUE(read(gzipped("")).empty());
  const std::string many = [] {
    std::string text;
    for (int i = 0; i < 300'000; ++i) text += kGood + "\n";
    return text;
  }();
  EXPECT_EQ(read(gzipped(many)).size(), 300'000u);
  expect_error(Fault::bad_data, {"rows.jsonl: is a Parquet table"}, [&] { read(gzipped("PAR1")); });
  expect_error(Fault::bad_data, {"rows.jsonl: holds more than 1 MiB", "gunzip --keep"}, [&] {
    gunzip(
        file, gzipped(many), [](std::string_view) {}, size_t{1} << 20);
  });
}

TEST_F(Rows, GzipThatIsNotWholeIsRefused) {
  const std::string whole = gzipped(kGood + "\n");
  for (const BadRows bad : {BadRows::error, BadRows::skip}) {
    for (size_t size = 2; size < whole.size(); ++size) {
      expect_error(Fault::bad_data, {"rows.jsonl: is compressed by gzip, and it is ", "gzip --test"},
                   [&] { read(whole.substr(0, size), RowFormat::automatic, bad); });
    }
    for (const size_t at : {whole.size() / 2, whole.size() - 8, whole.size() - 4}) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
      expect_error(Fault::bad_data, {"rows.jsonl", "it is damaged"}, [&] { read(damaged, RowFormat::automatic, bad); });
    }
    expect_error(Fault::bad_data, {"rows.jsonl", "something else follows"},
                 [&] { read(whole + kGood, RowFormat::automatic, bad); });
  }
}

TEST_F(Rows, ATextFileIsOneDocument) {
  file = scratch / "a.txt";
  const std::vector<Row> rows = read(
      "\xEF\xBB\xBF"
      "One.\r\n\r\n\"Two\"\r, {\n");
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].text, "One.\n\n\"Two\"\r, {\n");
  expect_error(Fault::bad_data, {"a.txt:1: byte 1 of the text is not valid UTF-8"}, [&] { read("a\xFF"); });
  expect_error(Fault::bad_data, {"a.txt: a .txt file is one text", "rename it to .jsonl"}, [&] { read(kGood + "\n"); });
  expect_error(Fault::bad_data, {"a.txt", "rename it"}, [&] { read("\n[\n" + kGood + "\n]\n"); });
  EXPECT_EQ(read("[1, 2]\n").size(), 1u);
  EXPECT_EQ(read(kGood + "\n", RowFormat::text).at(0).text, kGood + "\n") << "as it is asked for";
  const std::string dialog = R"({"messages": [{"role": "user", "content": "q"}]})";
  EXPECT_EQ(read(dialog + "\n" + dialog, RowFormat::messages).size(), 2u) << "lines of another format are rows";
  file = scratch / "b.txt.gz";
  EXPECT_EQ(read(gzipped("[1] is a footnote\n")).at(0).text, "[1] is a footnote\n");
}

TEST_F(Rows, FailedAnswersArePassedOver) {
  const std::string failed = "{\"error\": {\"row\": 2, \"message\": \"too long\"}}";
  write_text(file, kGood + "\n" + failed + "\n{\"text\": \"x\", \"error\": {}}\n");
  std::vector<int64_t> lines;
  size_t rows = 0;
  const auto passed_over = [&](int64_t line, const std::string&) { lines.push_back(line); };
  const ReadReport read = read_rows(
      file, RowFormat::automatic, BadRows::error, [&](const Row&) { ++rows; }, passed_over);
  EXPECT_EQ(rows, 2u);
  EXPECT_EQ(read.failed, 1);
  EXPECT_EQ(lines, std::vector<int64_t>{2});
  expect_error(Fault::bad_data, {file.string() + ":1: "}, [&] { this->read("{\"error\": \"x\"}\n"); });
}

TEST_F(Rows, OneObjectOverSeveralLinesIsNamed) {
  const char* const hint = "The file is one object over several lines";
  expect_error(Fault::bad_data, {"rows.jsonl:1: it is not valid JSON", hint},
               [&] { read("{\n  \"text\": \"x\"\n}\n"); });
  for (const std::string text : {"{\"text\": \"x\"\n", "nonsense\n", "{\"text\":\n"}) {
    try {
      read(text + kGood);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find(hint), std::string::npos) << error.what();
    }
  }
}

TEST_F(Rows, KeepTheLineTheyCameFrom) {
  const std::vector<Row> rows = read("\n\r\n" + kGood + "\r\n   \t\n" + kGood);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].line, 3);
  EXPECT_EQ(rows[1].line, 5);
}

TEST_F(Rows, AnEmptyFileHasNone) {
  for (const char* text : {"", "\n\n", "\xEF\xBB\xBF", "\r\n"}) EXPECT_TRUE(read(text).empty());
}

TEST_F(Rows, ContentComesAsAStringOrInParts) {
  const std::vector<Row> rows = read(
      R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},)"
      R"( {"role": "assistant", "content": "c \u00e9 \ud83d\ude00"}], "more": {"is": ["passed", "over"]}})");
  ASSERT_EQ(rows.size(), 1u);
  ASSERT_EQ(rows[0].messages.size(), 2u);
  EXPECT_EQ(rows[0].messages[0].content, "ab");
  EXPECT_EQ(rows[0].messages[1].role, "assistant");
  EXPECT_EQ(rows[0].messages[1].content, "c é 😀");
  expect_error(Fault::bad_data, {":1:", "content"}, [&] {
    read(R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]})");
  });
  expect_error(Fault::bad_data, {":1:", "content"},
               [&] { read(R"({"messages": [{"role": "user", "content": null}]})"); });
}

TEST_F(Rows, AreOfTheFormatAskedFor) {
  const std::string both = R"({"messages": [{"role": "user", "content": "m"}], "text": "t"})";
  EXPECT_EQ(read(both).at(0).messages.size(), 1u);
  EXPECT_EQ(read(both, RowFormat::text).at(0).text, "t");
  expect_error(Fault::bad_data, {"rows.jsonl:2:", "messages", "data.format"},
               [&] { read(both + "\n" + kGood, RowFormat::messages); });
  expect_error(Fault::bad_data, {"rows.jsonl:1:", "text", "data.format"},
               [&] { read(R"({"messages": []})", RowFormat::text); });
}

TEST_F(Rows, AHalfLastLineIsABadRow) {
  const std::string whole = kGood + "\n" + kGood;
  for (size_t cut = 1; cut < kGood.size(); ++cut) {
    const std::string half = whole.substr(0, whole.size() - cut);
    expect_error(Fault::bad_data, {"rows.jsonl:2:", "not valid JSON", "data.bad_rows"}, [&] { read(half); });
    EXPECT_EQ(read(half, RowFormat::automatic, BadRows::skip).size(), 1u);
    EXPECT_EQ(report.skipped, 1);
  }
}

TEST_F(Rows, NothingBehindANulIsLost) {
  using namespace std::string_literals;
  for (const std::string& bad :
       {kGood + "\0"s, kGood + "\0{\"text\": \"lost\"}"s, "\0"s + kGood, "{\"text\": \"a\0b\"}"s, "\0\0\0\0"s}) {
    expect_error(Fault::bad_data, {"rows.jsonl:2:", "NUL"}, [&] { read(kGood + "\n" + bad + "\n"); });
  }
  EXPECT_EQ(read(R"({"text": "a\u0000b"})").at(0).text, "a\0b"s);  // escaped, it is text
}

TEST_F(Rows, BytesThatAreNotUtf8AreNamed) {
  for (const std::string bytes : {"\xFF", "\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE2\x82", "\xFF\xFE{\0"}) {
    expect_error(Fault::bad_data, {"rows.jsonl:1:", "byte 10", "UTF-8"},
                 [&] { read("{\"text\": \"" + bytes + "\"}"); });
  }
  expect_error(Fault::bad_data, {"rows.jsonl:1:"}, [&] { read(R"({"text": "\ud800"})"); });  // a lone surrogate
}

TEST_F(Rows, DepthIsBounded) {
  const auto nested = [](int depth) {  // with the row's own braces
    return "{\"text\": \"x\", \"more\": " + std::string(static_cast<size_t>(depth - 1), '[') +
           std::string(static_cast<size_t>(depth - 1), ']') + "}";
  };
  EXPECT_EQ(read(nested(64)).size(), 1u);
  expect_error(Fault::bad_data, {"rows.jsonl:1:", "64 deep"}, [&] { read(nested(65)); });
  expect_error(Fault::bad_data, {"rows.jsonl:1:", "64 deep"}, [&] { read(nested(1000000)); });
}

TEST_F(Rows, AnEndlessLineIsRefusedAndTheNextIsRead) {
  const std::string text = kGood + "\n{\"text\": \"" + std::string(size_t{64} << 20, 'x') + "\"}\n" + kGood + "\n";
  EXPECT_EQ(read(text, RowFormat::automatic, BadRows::skip).size(), 2u);
  ASSERT_EQ(report.complaints.size(), 1u);
  EXPECT_NE(report.complaints[0].find("rows.jsonl:2: the line is longer than 64 MB"), std::string::npos)
      << report.complaints[0];
}

TEST_F(Rows, EverySkippedRowCountsButOnlyTheFirstAreTold) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += i % 4 == 0 ? kGood + "\n" : "nonsense\n";
  EXPECT_EQ(read(text, RowFormat::automatic, BadRows::skip).size(), 25u);
  EXPECT_EQ(report.rows, 25);
  EXPECT_EQ(report.skipped, 75);
  ASSERT_EQ(report.complaints.size(), 10u);
  EXPECT_NE(report.complaints[0].find("rows.jsonl:2:"), std::string::npos);
  EXPECT_NE(report.complaints[9].find("rows.jsonl:14:"), std::string::npos);
}

TEST_F(Rows, WhatIsRefusedFurtherOnIsABadRowToo) {
  write_text(file, kGood + "\n" + kGood + "\n");
  const auto refuse_second = [](const Row& row) {
    if (row.line == 2) fail(Fault::bad_data, "not wanted");
  };
  expect_error(Fault::bad_data, {"rows.jsonl:2: not wanted"},
               [&] { read_rows(file, RowFormat::automatic, BadRows::error, refuse_second); });
  EXPECT_EQ(read_rows(file, RowFormat::automatic, BadRows::skip, refuse_second).skipped, 1);
  const auto disk_full = [](const Row&) { fail(Fault::io, "disk full"); };
  expect_error(Fault::io, {"disk full"}, [&] { read_rows(file, RowFormat::automatic, BadRows::skip, disk_full); });
}

TEST_F(Rows, AMissingFileIsNamed) {
  expect_error(Fault::missing_input, {"nowhere.jsonl"},
               [&] { read_rows(scratch / "nowhere.jsonl", RowFormat::automatic, BadRows::skip, [](const Row&) {}); });
}

}  // namespace
}  // namespace drover
