#include "kernels/base/file.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>

#include "kernels/base/append_file.h"
#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "tests/base/scratch_directory.h"
#include "tests/base/small_files.h"

namespace drover {
namespace {

size_t entries(const fs::path& directory) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(directory), fs::directory_iterator()));
}

TEST(File, TextComesBack) {
  ScratchDirectory dir;
  const std::string text = std::string("line\n\0line", 10) + std::string(200000, 'x');
  write_text(dir / "a.txt", text);
  EXPECT_EQ(read_text(dir / "a.txt"), text);
  write_text(dir / "a.txt", "");
  EXPECT_EQ(read_text(dir / "a.txt"), "");
  EXPECT_EQ(entries(dir.path()), 1u);
}

TEST(File, ReadErrorsNameThePath) {
  ScratchDirectory dir;
  expect_error(Fault::missing_input, {"none.txt", "No such file"}, [&] { read_text(dir / "none.txt"); });
  expect_error(Fault::io, {dir.path().string(), "directory"}, [&] { read_text(dir.path()); });
  write_text(dir / "big.txt", "0123456789");
  EXPECT_EQ(read_text(dir / "big.txt", 10).size(), 10u);
  expect_error(Fault::bad_data, {"big.txt", "9 bytes"}, [&] { read_text(dir / "big.txt", 9); });
  expect_error(Fault::missing_input, {"none.txt"}, [&] { MappedFile map(dir / "none.txt"); });
  expect_error(Fault::io, {"regular"}, [&] { MappedFile map(dir.path()); });
}

TEST(File, MapShowsTheBytes) {
  ScratchDirectory dir;
  std::string text;
  for (int i = 0; i < 40000; ++i) text += static_cast<char>(i * 7);
  write_text(dir / "m", text);
  MappedFile map(dir / "m");
  map.advise_done(0, 20000);
  map.advise_done(0, text.size() * 2);
  MappedFile moved(std::move(map));
  EXPECT_EQ(map.bytes().size(), 0u);  // NOLINT(bugprone-use-after-move): what was moved from is empty
  ASSERT_EQ(moved.bytes().size(), text.size());
  EXPECT_EQ(std::memcmp(moved.bytes().data(), text.data(), text.size()), 0);
  write_text(dir / "empty", "");
  EXPECT_EQ(MappedFile(dir / "empty").bytes().size(), 0u);
}

TEST(AtomicFile, AppearsOnlyAtCommit) {
  ScratchDirectory dir;
  write_text(dir / "f", "old");
  {
    AtomicFile file(dir / "f");
    file.write("new");
    EXPECT_EQ(read_text(dir / "f"), "old");
  }
  EXPECT_EQ(read_text(dir / "f"), "old");
  EXPECT_EQ(entries(dir.path()), 1u) << "a dropped file leaves nothing";
  AtomicFile file(dir / "f");
  file.write("ne");
  file.write("w");
  file.commit();
  EXPECT_EQ(read_text(dir / "f"), "new");
  EXPECT_EQ(entries(dir.path()), 1u);
}

TEST(AtomicFile, FailuresSayWhereAndWhy) {
  ScratchDirectory dir;
  expect_error(Fault::io, {"absent/f", "No such file"}, [&] { AtomicFile file(dir / "absent/f"); });
  write_text(dir / "file", "x");
  expect_error(Fault::io, {"file/sub", "Not a directory"}, [&] { make_directories(dir / "file/sub"); });
  make_directories(dir / "a/b/c");
  EXPECT_TRUE(fs::is_directory(dir / "a/b/c"));
  make_directories(dir / "a/b/c");
  expect_error(Fault::io, {"nothing", "elsewhere"}, [&] { rename_durably(dir / "nothing", dir / "elsewhere"); });
  rename_durably(dir / "file", dir / "a/file");
  EXPECT_EQ(read_text(dir / "a/file"), "x");
  sync_file(dir / "a/file");
}

TEST(AtomicFile, AFileThatMayNotGrowLeavesTheOldOne) {
  ScratchDirectory dir;
  write_text(dir / "f", "old");
  {
    const SmallFiles small(4096);
    expect_error(Fault::io, {"/f", "File too large"}, [&] { write_text(dir / "f", std::string(10000, 'x')); });
  }
  EXPECT_EQ(read_text(dir / "f"), "old");
  EXPECT_EQ(entries(dir.path()), 1u);
}

TEST(AtomicFile, RemovesWhatAKilledProcessLeft) {
  ScratchDirectory dir;
  const pid_t killed = fork();
  if (killed == 0) {
    AtomicFile file(dir / "a.txt");
    file.write("half");
    raise(SIGKILL);
  }
  waitpid(killed, nullptr, 0);
  EXPECT_EQ(entries(dir.path()), 1u);
  write_text(dir / "a.txt.tmp-notes", "not ours");
  AtomicFile alive(dir / "a.txt");
  write_text(dir / "a.txt", "whole");
  EXPECT_EQ(entries(dir.path()), 3u);  // that of the living one stays
  alive.write("later");
  alive.commit();
  EXPECT_EQ(read_text(dir / "a.txt"), "later");
  EXPECT_EQ(entries(dir.path()), 2u);
}

TEST(AppendFile, GrowsByWholeTextsAndSaysWhyNot) {
  ScratchDirectory dir;
  write_text(dir / "a.txt", "old");
  AppendFile(dir / "a.txt", AppendFile::Begin::keep).write(" and new");
  EXPECT_EQ(read_text(dir / "a.txt"), "old and new");
  AppendFile(dir / "a.txt", AppendFile::Begin::anew).write("only");
  EXPECT_EQ(read_text(dir / "a.txt"), "only");
  expect_error(Fault::io, {"no/a.txt", "No such file or directory"},
               [&] { AppendFile(dir / "no" / "a.txt", AppendFile::Begin::anew); });
  expect_error(Fault::io, {"/dev/full", "No space left on device"},
               [] { AppendFile("/dev/full", AppendFile::Begin::keep).write("text"); });
}

// Needs a directory on a small file system: DROVER_TEST_SMALL_DIRECTORY=DIR (64 KiB or so).
TEST(AtomicFile, AFullDiskIsToldInBytes) {
  const char* small = std::getenv("DROVER_TEST_SMALL_DIRECTORY");
  if (small == nullptr) GTEST_SKIP() << "DROVER_TEST_SMALL_DIRECTORY is not set";
  expect_error(Fault::io, {"No space left", "bytes are free", "at least"},
               [&] { write_text(fs::path(small) / "f", std::string(1 << 20, 'x')); });
  EXPECT_EQ(entries(small), 0u);
}

TEST(Hash, KnownDigests) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_prefix("abc"), 0xeacf018fbf1678baull);
  EXPECT_EQ(xxh3("", 0), 0x2d06800538d394c2ull);
  EXPECT_NE(xxh3("abc", 3), xxh3("abc", 3, 1));
}

TEST(Hash, FileInPiecesEqualsWhole) {
  ScratchDirectory dir;
  const std::string text(3'000'001, 'q');
  write_text(dir / "f", text);
  EXPECT_EQ(sha256_file(dir / "f"), sha256_hex(text));
  Sha256 hash;
  hash.update(text.data(), 1000);
  hash.update(text.data() + 1000, text.size() - 1000);
  EXPECT_EQ(hash.hex(), sha256_hex(text));
  expect_error(Fault::missing_input, {"none"}, [&] { sha256_file(dir / "none"); });
}

}  // namespace
}  // namespace drover
