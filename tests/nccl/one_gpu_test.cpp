// What one GPU can show of NCCL: every collective on a communicator of one rank, and ranks that share the GPU being
// refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "kernels/comm/threads.h"
#include "kernels/nccl/link.h"
#include "kernels/nccl/nccl_mesh.h"
#include "tests/nccl/on_device.h"

namespace drover::nccl {
namespace {

TEST(NcclOneRank, EveryCollectiveLeavesWhatItShould) {
  cuda::CudaBackend backend({});
  const Mesh host = make_self_mesh();
  ncclUniqueId id;
  ASSERT_EQ(api_under_test().get_unique_id(&id), ncclSuccess);
  const auto link = std::make_shared<Link>(api_under_test(), host.world, backend, 0);
  const ncclComm_t world = link->init(1, 0, id);
  const ncclComm_t tp = link->split(world, 0, 0, "tp");
  for (bool deterministic : {false, true}) {
    const auto c = make_communicator(link, host.axes[Axis::tp], tp, deterministic);
    for (DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      for (auto [rows, cols, margin] : {std::array<int64_t, 3>{1, 1, 0}, {5, 7, 0}, {5, 8, 8}, {300, 1000, 24}}) {
        const std::vector<double> values = drawn_values(0, rows * cols);
        OnDevice x(backend, rows, cols, dtype, margin), y(backend, rows, cols, dtype, margin);
        x.set(values);
        c->all_reduce(x.tensor);
        EXPECT_EQ(x.get(), values);
        c->all_gather(x.tensor, y.tensor);
        EXPECT_EQ(y.get(), values);
        c->broadcast(y.tensor, 0);
        EXPECT_EQ(y.get(), values);
        if (margin > 0) {
          EXPECT_THAT(x.margin(), testing::Each(77));
          EXPECT_THAT(y.margin(), testing::Each(77));
        }
      }
    }
  }
}

TEST(NcclOneGpu, RanksThatShareItAreRefused) {
  try {
    run_on_threads({{Axis::tp, 2}}, [](Mesh& host) {
      cuda::CudaBackend backend({});
      make_mesh(api_under_test(), host, backend, {});
    });
    FAIL() << "was not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::bad_recipe);
    EXPECT_THAT(error.what(), testing::HasSubstr("ranks 0 and 1 share one GPU"));
    EXPECT_THAT(error.what(), testing::HasSubstr("parallel.transport: staged"));
  }
}

}  // namespace
}  // namespace drover::nccl
