// How slices lie in the flat buffers, and what is refused.
#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "tests/optim/some_slices.h"

namespace drover {
namespace {

TEST(Slices, WholeOnesLieFirstAndAGroupOfEachKindIsOneRun) {
  const SomeTrainables some(some_slices(make_self_mesh()));
  const Trainables& t = some.trainables;
  EXPECT_EQ(t.size(), kLayers * (30 + 24 + 30 + 14 + 18));
  EXPECT_EQ(t.whole_size(), kLayers * (30 + 14 + 18));
  std::vector<std::pair<int, int64_t>> runs;
  for (const Trainables::Run& run : t.runs()) runs.emplace_back(run.group, run.size);
  EXPECT_EQ(runs, (std::vector<std::pair<int, int64_t>>{
                      {0, kLayers * 48}, {1, kLayers * 14}, {0, kLayers * 30}, {1, kLayers * 24}}));
  for (const Slice& s : t.slices()) {
    EXPECT_EQ(s.whole, s.offset < t.whole_size()) << s.name;
    const Tensor part = view(t.gradients, s);
    EXPECT_EQ(part.rows, s.row_count);
    EXPECT_EQ(part.cols, s.cols);
    EXPECT_EQ(part.as<float>()[s.size() - 1], some_value(s, s.size() - 1)) << s.name;
  }
}

TEST(Slices, MembersOfAGroupKeepTheirOrder) {  // a linear group's A lie one under another
  const std::vector<Slice> slices = some_slices(make_self_mesh());
  EXPECT_EQ(slices[4].name, "0.up.a");
  EXPECT_EQ(slices[4].offset, slices[0].offset + slices[0].size());
}

TEST(Trainables, RefuseSlicesThatAreNotLaidOut) {
  const auto refused = [](auto&& change) {
    std::vector<Slice> slices = some_slices(make_self_mesh());
    change(slices);
    EXPECT_THROW(SomeTrainables{slices}, Error);
  };
  refused([](auto& s) { s[1].offset = s[2].offset; });  // overlap
  refused([](auto& s) {
    s.pop_back();
    s[0].offset += 1;
  });                                           // a gap
  refused([](auto& s) { s[1].whole = true; });  // whole behind split
  refused([](auto& s) {
    s[0].row_count -= 1;
    lay_out(std::span(s));
  });  // a whole slice that is not
  refused([](auto& s) {
    std::swap(s[0], s[9]);
    lay_out(std::span(s));
  });  // not the model's order
}

}  // namespace
}  // namespace drover
