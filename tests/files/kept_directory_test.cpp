// A directory that is made by several processes after each other, and appears when it is whole.
#include "model/files/kept_directory.h"

#include <gtest/gtest.h>

#include "model/files/shards.h"
#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

using Found = KeptDirectory::Found;

TEST(KeptDirectory, GoesOnWhereItIsTheSame) {
  ScratchDirectory dir;
  const fs::path target = dir / "model";
  const KeptPaths paths(target, "merging");
  {
    KeptDirectory first(KeptPaths(target / "", "merging"), "one");
    EXPECT_EQ(first.found(), Found::nothing);
    write_text(first.paths().files / "a", "of one");
    write_text(first.paths().journal / "a.json", "a note");
  }
  EXPECT_FALSE(fs::exists(target));
  {
    KeptDirectory second(paths, "one");
    EXPECT_EQ(second.found(), Found::same);
    EXPECT_EQ(read_text(second.paths().files / "a"), "of one");
    EXPECT_EQ(read_text(second.paths().journal / "a.json"), "a note");
  }
  KeptDirectory third(paths, "another");
  EXPECT_EQ(third.found(), Found::another);
  EXPECT_TRUE(fs::is_empty(third.paths().files));
  EXPECT_TRUE(fs::is_empty(third.paths().journal));
  write_text(third.paths().files / "b", "of another");
  fs::create_directory(target);  // an empty one is no hindrance
  third.commit();
  EXPECT_EQ(read_text(target / "b"), "of another");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 1);
}

TEST(KeptDirectory, IsMadeByOneAtATimeAndReplacesNothing) {
  ScratchDirectory dir;
  const KeptPaths paths(dir / "model", "merging");
  KeptDirectory first(paths, "one");
  expect_error(Fault::usage, {"another process is making"}, [&] { KeptDirectory(paths, "one"); });
  write_text(first.paths().files / "a", "a");
  fs::create_directory(dir / "model");
  write_text(dir / "model" / "notes.txt", "mine");
  expect_error(Fault::usage, {"already holds notes.txt"}, [&] { first.commit(); });
  first.abandon();
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 1);
  expect_error(Fault::usage, {"already holds notes.txt"}, [&] { KeptDirectory(paths, "one"); });
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 1);
}

TEST(Shards, GroupsStayTogether) {
  const auto tensor = [](const std::string& name, int64_t bytes) { return TensorSpec{name, StoredType::u8, {bytes}}; };
  const std::vector<Shard> shards = plan_shards(
      {{tensor("a", 6)}, {tensor("b", 3), tensor("b.scale", 2)}, {tensor("c", 5)}, {tensor("d", 50), tensor("d.x", 1)}},
      10);
  ASSERT_EQ(shards.size(), 3u);
  EXPECT_EQ(shards[0].file, "model-00001-of-00003.safetensors");
  EXPECT_EQ(shards[0].bytes(), 6);
  EXPECT_EQ(shards[1].bytes(), 10);
  EXPECT_EQ(shards[2].bytes(), 51);
  EXPECT_EQ(plan_shards({{tensor("a", 6)}}, 1)[0].file, "model.safetensors");
}

}  // namespace
}  // namespace drover
