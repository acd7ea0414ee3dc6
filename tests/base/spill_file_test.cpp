#include "kernels/base/spill_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "kernels/base/error.h"
#include "tests/base/scratch_directory.h"
#include "tests/base/small_files.h"

namespace drover {
namespace {

std::string text_of(SpillFile& file) {
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(SpillFile, WhatWasWrittenIsReadAlsoBetweenWrites) {
  ScratchDirectory dir;
  SpillFile file(dir.path());
  EXPECT_EQ(text_of(file), "");
  const std::string part(700000, 'a'), more(2500000, 'b');
  file.write(part.data(), part.size());
  EXPECT_EQ(text_of(file), part);
  file.write(more.data(), more.size());
  file.write("c", 1);
  EXPECT_EQ(file.size(), part.size() + more.size() + 1);
  EXPECT_EQ(text_of(file), part + more + "c");
  file.advise_done();
  EXPECT_EQ(text_of(file), part + more + "c");
  EXPECT_TRUE(fs::is_empty(dir.path())) << "it has no name";
}

TEST(SpillFile, ADirectoryThatIsNotThereIsNamed) {
  ScratchDirectory dir;
  expect_error(Fault::io, {"missing"}, [&] { SpillFile file(dir / "missing"); });
}

TEST(SpillFile, ADiskThatTakesNoMoreIsAnError) {
  ScratchDirectory dir;
  SpillFile file(dir.path());
  const SmallFiles small(8192);
  const std::string much(3000000, 'x');
  expect_error(Fault::io, {dir.path().string(), "File too large"}, [&] { file.write(much.data(), much.size()); });
}

}  // namespace
}  // namespace drover
