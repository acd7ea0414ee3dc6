// Uploads that run while ops do: what is enqueued before sees the old rows, and what comes after the wait the new ones.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "tests/reference/backend_under_test.h"

namespace drover {
namespace {

TEST(StartUpload, IsSeenByWhatComesAfterItsWait) {
  const auto backend = reference::backend_under_test();
  Arena arena("upload", backend->memory(), int64_t{1} << 20);
  constexpr int64_t kRows = 300, kColumns = 33;
  const Tensor wide = arena.tensor(kRows, kColumns, DType::f32, kColumns + 7),
               before = arena.tensor(kRows, kColumns, DType::f32), after = arena.tensor(kRows, kColumns, DType::f32);
  std::vector<float> old(static_cast<size_t>(kRows * kColumns)), fresh(old.size()), got(old.size());
  std::iota(old.begin(), old.end(), 1.0f);
  std::iota(fresh.begin(), fresh.end(), -5000.0f);
  backend->upload(old.data(), wide);
  backend->copy(wide, before);
  std::vector<float> passing = fresh;  // read before the call returns
  const auto transfer = backend->start_upload(passing.data(), wide);
  std::fill(passing.begin(), passing.end(), 0.0f);
  transfer->wait();
  transfer->wait();
  backend->copy(wide, after);
  backend->download(before, got.data());
  EXPECT_EQ(got, old);
  backend->download(after, got.data());
  EXPECT_EQ(got, fresh);
}

}  // namespace
}  // namespace drover
