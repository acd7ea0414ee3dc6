// What a pipeline stage sends: the columns of the residual stream, and none of what a backend keeps between its rows.
#include <gtest/gtest.h>

#include "kernels/comm/count.h"
#include "kernels/count/count.h"
#include "kernels/cuda/weight.h"
#include "trainer/engine/plan.h"

namespace drover {
namespace {

TEST(Wire, CarriesTheStreamsColumnsAndNoMore) {
  constexpr int64_t kTokens = 16, kMicroBatches = 3;
  const MeshShape shape{{Axis::pp, 2}};
  for (const BackendTraits& traits : {BackendTraits{}, cuda::kTraits}) {
    EngineSettings s;
    s.model.layers = 4, s.model.hidden = 64, s.model.heads = 4, s.model.kv_heads = 2, s.model.head_dim = 16;
    s.model.ffn = 96, s.model.vocab = 100, s.model.max_positions = kTokens;
    s.adapter = adapter_layout(s.model, [](const std::string&) { return LowRankSpec{4, 1.0f}; });
    s.partition = partition_layers(s.model.layers, 2, 0.7);
    s.dtype = DType::bf16;
    s.traits = traits;
    s.max_positions = kTokens;
    s.capacity = {.micro_batch = {kTokens, kTokens}, .local_micro_batches = kMicroBatches};
    for (int stage : {0, 1}) {
      const Device device = count_device(traits, shape, MeshPosition{{Axis::pp, stage}});
      NoWeights nothing;
      Replica replica(s, device, nothing, kPlenty);
      Engine engine(s, replica, kPlenty.saved);
      engine.train_step(worst_batch(kTokens, kTokens, kTokens, kMicroBatches, 1), 1);
      const auto& pp = dynamic_cast<const CountCommunicator&>(device.mesh.pp());
      for (const char* way : {"send", "receive"}) {
        EXPECT_EQ(pp.count(way).calls, kMicroBatches);
        EXPECT_EQ(pp.count(way).bytes, kMicroBatches * kTokens * s.model.hidden * 2) << way << " of stage " << stage;
      }
    }
  }
}

}  // namespace
}  // namespace drover
