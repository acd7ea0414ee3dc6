// A run that its machine cannot hold is refused before it starts. (The prediction itself is compared with a real run in
// tests/e2e.)
#include "trainer/run/process_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/base/error.h"

namespace drover {
namespace {

TEST(ProcessMemory, IsReadFromTheSystem) {
  const int64_t before = peak_process_bytes();
  EXPECT_GT(current_process_bytes(), 0);
  std::vector<char> block(size_t{64} << 20, 1);
  EXPECT_GE(peak_process_bytes(), before + (int64_t{32} << 20)) << block[5];
}

TEST(ProcessMemory, MoreThanTheMachineHasIsRefused) {
  const auto world = make_self_communicator("world");
  check_fits_machine(*world, int64_t{1} << 20);
  try {
    check_fits_machine(*world, int64_t{1} << 60);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::bad_recipe);
    EXPECT_THAT(error.what(), testing::HasSubstr("need about 1073741824.0 GiB of memory, and it has"));
    EXPECT_THAT(error.what(), testing::HasSubstr("parallel.tp"));
  }
}

}  // namespace
}  // namespace drover
