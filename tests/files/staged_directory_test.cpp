#include "model/files/staged_directory.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

size_t entries(const fs::path& directory) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(directory), fs::directory_iterator()));
}

TEST(StagedDirectory, RemovesWhatAKilledProcessLeft) {
  ScratchDirectory dir;
  const pid_t killed = fork();
  if (killed == 0) {
    const StagedDirectory staged(dir / "model");
    write_text(staged.path() / "weights", "half");
    raise(SIGKILL);
  }
  waitpid(killed, nullptr, 0);
  EXPECT_EQ(entries(dir.path()), 1u);

  StagedDirectory staged(dir / "model");
  EXPECT_EQ(entries(dir.path()), 1u);
  write_text(staged.path() / "weights", "whole");
  staged.commit();
  EXPECT_EQ(entries(dir.path()), 1u);
  EXPECT_EQ(read_text(dir / "model" / "weights"), "whole");
}

TEST(StagedDirectory, LeavesAloneWhatALivingProcessWrites) {
  ScratchDirectory dir;
  int begun[2], over[2];
  ASSERT_EQ(pipe(begun), 0);
  ASSERT_EQ(pipe(over), 0);
  const pid_t other = fork();
  if (other == 0) {
    const StagedDirectory staged(dir / "model");
    char byte = 0;
    (void)!write(begun[1], &byte, 1);
    (void)!read(over[0], &byte, 1);
    _exit(fs::exists(staged.path()) ? 0 : 1);
  }
  char byte = 0;
  ASSERT_EQ(read(begun[0], &byte, 1), 1);
  { const StagedDirectory staged(dir / "model"); }
  ASSERT_EQ(write(over[1], &byte, 1), 1);
  int status = 1;
  waitpid(other, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace drover
