// Generation divided over tensor-parallel and pipeline ranks chooses what one rank chooses.
#include <mutex>

#include "kernels/comm/threads.h"
#include "tests/model/generation/made_up_room.h"

namespace drover {
namespace {

class GenerationMesh : public testing::TestWithParam<std::pair<int, int>> {};

TEST_P(GenerationMesh, ChoosesWhatOneRankChooses) {
  const auto [tp, pp] = GetParam();
  std::vector<Request> requests = made_up_requests(20);
  for (Request& r : requests) r.sampling.greedy = true;
  requests[4].ids.clear();
  const RoomSettings settings{.blocks = 22, .batcher = {.sequences = 6, .pass_rows = 160, .dearest = dearest()}};
  Room one(settings);
  const std::vector<Answer> expected = answer_all(one.batcher(), requests);
  std::mutex mutex;
  int ranks = 0;
  run_on_threads({{Axis::tp, tp}, {Axis::pp, pp}}, [&](Mesh& mesh) {
    Room room(settings, mesh);
    const std::vector<Answer> got = answer_all(room.batcher(), requests);
    const std::lock_guard lock(mutex);
    ++ranks;
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].ids, expected[i].ids) << "request " << i;
      EXPECT_EQ(got[i].finish, expected[i].finish) << "request " << i;
      for (size_t t = 0; requests[i].sampling.logprobs && t < got[i].tokens.size(); ++t) {
        const Chosen &one = got[i].tokens[t], &other = expected[i].tokens[t];
        EXPECT_NEAR(one.logprob, other.logprob, 1e-4);
        ASSERT_EQ(one.top.size(), other.top.size());
        for (size_t k = 0; k < one.top.size(); ++k) EXPECT_NEAR(one.top[k].logprob, other.top[k].logprob, 1e-4);
      }
    }
    EXPECT_GT(room.batcher().preemptions(), 0);
    EXPECT_EQ(room.batcher().prefixes().free_blocks(), 22);
  });
  EXPECT_EQ(ranks, tp * pp);
}

INSTANTIATE_TEST_SUITE_P(Meshes, GenerationMesh,
                         testing::Values(std::pair{2, 1}, std::pair{1, 2}, std::pair{2, 2}, std::pair{1, 4}),
                         [](const auto& info) { return fmt::format("tp{}pp{}", info.param.first, info.param.second); });

}  // namespace
}  // namespace drover
