// The host's part of a step against a device that never catches up: nothing in it waits.
#include "tests/cuda/emulation/streams.h"
#include "tests/cuda/training.h"

namespace drover {
namespace {

TEST(CudaWaiting, StepsAreEnqueuedWithoutAWait) {
  const auto backend = cuda_under_test();
  EngineSettings s = settings_of({});
  s.traits = backend->traits();
  DrawnWeights weights(11, 0.15f, 0.5f);
  const ArenaBytes bytes = plan_rank(s, {}, {}).bytes;
  Replica replica(s, {backend, make_self_mesh()}, weights, bytes);
  Engine engine(s, replica, bytes.saved);
  replica.adapter->initialise(1);
  engine.train_step(batch_of(0), 1);  // the first may grow a workspace
  const int64_t before = cuda::emulation::waits;
  PendingStep second = engine.enqueue_step(batch_of(1), 2);
  PendingStep third = engine.enqueue_step(batch_of(2), 3);
  EXPECT_EQ(cuda::emulation::waits, before);
  EXPECT_GT(second.result().grad_norm, 0);
  EXPECT_EQ(cuda::emulation::waits, before + 2);  // for the losses and the norm
  EXPECT_NE(third.result().loss, second.result().loss);
}

// More than the ring of pinned memory holds: the oldest transfers are waited for, and every byte arrives.
TEST(CudaWaiting, AFullRingOfUploadsIsUsedAgain) {
  const auto backend = cuda_under_test();
  Arena arena("uploads", backend->memory(), int64_t{200} << 20);
  const int64_t before = cuda::emulation::waits;
  std::vector<std::pair<std::vector<float>, Tensor>> sent;
  for (const int64_t rows : {5'000'000, 3, 4'000'000, 1, 7, 6'000'000, 10'000'000}) {
    std::vector<float> host(static_cast<size_t>(rows));
    for (size_t i = 0; i < host.size(); ++i) host[i] = static_cast<float>(i % 8191) + static_cast<float>(sent.size());
    const Tensor t = arena.tensor(rows, 1, DType::f32);
    backend->upload(host.data(), t);
    sent.emplace_back(std::move(host), t);
  }
  EXPECT_GT(cuda::emulation::waits, before);
  for (const auto& [host, t] : sent) EXPECT_TRUE(std::equal(host.begin(), host.end(), t.as<float>()));
}

}  // namespace
}  // namespace drover
