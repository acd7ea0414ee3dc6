// What a path of the recipe's data names: a file, a directory, a pattern; in which order, and what is refused.
#include "data/data_files.h"

#include <gtest/gtest.h>

#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

class DataFiles : public testing::Test {
 protected:
  void make(const std::string& name) {
    make_directories((scratch / name).parent_path());
    write_text(scratch / name, "x");
  }
  std::vector<std::string> names(const fs::path& path) {
    std::vector<std::string> out;
    for (const fs::path& file : data_files(path)) out.push_back(fs::relative(file, scratch.path()).string());
    return out;
  }
  ScratchDirectory scratch;
};
using Names = std::vector<std::string>;

TEST_F(DataFiles, OfADirectoryComeInTheOrderOfTheirNames) {
  for (const char* name : {"s/c.jsonl", "s/a.jsonl.gz", "s/B.jsonl", "s/a10.ndjson", "s/.hidden"}) make(name);
  EXPECT_EQ(names(scratch / "s"), (Names{"s/B.jsonl", "s/a.jsonl.gz", "s/a10.ndjson", "s/c.jsonl"}));
}

TEST_F(DataFiles, OfAPatternToo) {
  for (const char* name : {"s/2.jsonl", "s/1.jsonl", "s/3.json", "t/1.jsonl", "s/x.md"}) make(name);
  EXPECT_EQ(names(scratch / "s/*.jsonl"), (Names{"s/1.jsonl", "s/2.jsonl"}));
  EXPECT_EQ(names(scratch / "?/1.jsonl"), (Names{"s/1.jsonl", "t/1.jsonl"}));
  EXPECT_EQ(names(scratch / "s/[2-9].jsonl"), (Names{"s/2.jsonl"}));
  EXPECT_EQ(names(scratch / "s/*.md"), (Names{"s/x.md"})) << "what is named is taken";
  make("s/[2-9].jsonl");
  EXPECT_EQ(names(scratch / "s/[2-9].jsonl"), (Names{"s/[2-9].jsonl"})) << "a file of that very name comes first";
}

TEST_F(DataFiles, NoneIsMissingInput) {
  fs::create_directory(scratch / "empty");
  expect_error(Fault::missing_input, {"empty: no file is in it"}, [&] { names(scratch / "empty"); });
  expect_error(Fault::missing_input, {"*.jsonl: no file matches"}, [&] { names(scratch / "empty/*.jsonl"); });
  EXPECT_FALSE(has_data_files(scratch / "empty/*.jsonl"));
  EXPECT_FALSE(has_data_files(scratch / "a.jsonl"));
  EXPECT_EQ(names(scratch / "a.jsonl"), (Names{"a.jsonl"})) << "whoever reads it says that it is not there";
}

TEST_F(DataFiles, OfSeveralKindsAreRefused) {
  for (const char* name : {"s/a.jsonl", "s/b.txt", "t/a.jsonl", "t/README.md", "u/a.jsonl", "u/more/b.jsonl"})
    make(name);
  expect_error(Fault::bad_data, {"a.jsonl and b.txt", "a path of its own"}, [&] { names(scratch / "s"); });
  expect_error(Fault::bad_data, {"a.jsonl and b.txt"}, [&] { names(scratch / "s/*"); });
  expect_error(Fault::bad_data, {"README.md in it is no file of rows", "/*.jsonl"}, [&] { names(scratch / "t"); });
  expect_error(Fault::bad_data, {"more in it is no file of rows"}, [&] { names(scratch / "u"); });
  expect_error(Fault::bad_data, {"is a directory"}, [&] { names(scratch / "u/*"); });
  expect_error(Fault::bad_recipe, {"** is not supported"}, [&] { names(scratch / "**/a.jsonl"); });
}

}  // namespace
}  // namespace drover
