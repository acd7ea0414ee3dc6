// Pieces that are made in threads are used in their order, a few at a time, and an error comes at its piece's turn.
#include "kernels/base/in_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

namespace drover {
namespace {

using std::chrono::milliseconds;

TEST(InOrder, PiecesAreUsedInTheirOrderAndFewAreThere) {
  for (const int threads : {1, 2, 5}) {
    std::atomic<int> there{0}, most{0};
    std::vector<int> used;
    InOrder<int> pieces(threads, [&](int made) {
      used.push_back(made);
      --there;
    });
    for (int i = 0; i < 20; ++i) {
      pieces.add([&, i] {
        most = std::max<int>(most, ++there);
        std::this_thread::sleep_for(milliseconds(i % 4 == 0 ? 4 : 0));  // the first is not the first to be made
        return i;
      });
    }
    pieces.finish();
    ASSERT_EQ(used.size(), 20u);
    EXPECT_TRUE(std::is_sorted(used.begin(), used.end()));
    EXPECT_LE(most, threads);
  }
}

TEST(InOrder, WorkIsDoneAtOnce) {
  std::atomic<int> begun{0};
  InOrder<bool> pieces(2, [](bool saw) { EXPECT_TRUE(saw) << "each waits until the other has begun"; });
  for (int i = 0; i < 2; ++i) {
    pieces.add([&] {
      ++begun;
      for (int wait = 0; wait < 5000 && begun < 2; ++wait) std::this_thread::sleep_for(milliseconds(1));
      return begun == 2;
    });
  }
  pieces.finish();
}

TEST(InOrder, AnErrorComesAtItsTurnAndNothingAfterItIsUsed) {
  for (const int threads : {1, 3}) {
    std::vector<int> used;
    std::string said;
    try {
      InOrder<int> pieces(threads, [&](int made) { used.push_back(made); });
      for (int i = 0; i < 9; ++i) {
        pieces.add([i]() -> int {
          if (i == 4 || i == 5) throw std::runtime_error(std::to_string(i));
          return i;
        });
      }
      pieces.finish();
    } catch (const std::runtime_error& error) {
      said = error.what();
    }
    EXPECT_EQ(said, "4");
    EXPECT_EQ(used, (std::vector<int>{0, 1, 2, 3}));
  }
}

}  // namespace
}  // namespace drover
