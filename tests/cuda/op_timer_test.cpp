// A profile of a device that is behind its host: times are those between the device's own events, and no op waits for
// them.
#include "kernels/timed/op_timer.h"

#include "tests/cuda/emulation/streams.h"
#include "tests/cuda/training.h"

namespace drover {
namespace {

constexpr double kBetweenEvents = 1e-3;  // seconds, on the emulated device, whatever the host's clock says

TEST(CudaOpTimer, TakesTimesFromEventsAndDoesNotWaitInAStep) {
  const auto backend = cuda_under_test();
  const Device device{backend, make_self_mesh()};
  EngineSettings s = settings_of({});
  s.traits = backend->traits();
  DrawnWeights weights(11, 0.15f, 0.5f);
  const ArenaBytes bytes = plan_rank(s, {}, {}).bytes;
  Replica replica(s, device, weights, bytes);
  Engine engine(s, replica, bytes.saved);
  replica.adapter->initialise(1);
  engine.train_step(batch_of(0), 1);  // the first may grow a workspace

  OpTimer timer(*backend);
  const int64_t before = cuda::emulation::waits;
  PendingStep pending = engine.enqueue_step(batch_of(1), 2);
  EXPECT_EQ(cuda::emulation::waits, before);
  EXPECT_GT(pending.result().grad_norm, 0);
  const auto& times = timer.times();
  for (const char* op : {"linear", "linear_dx", "low_rank_backward", "attention", "rms_norm", "adamw", "read_later"}) {
    ASSERT_EQ(times.count(op), 1u) << op;
    EXPECT_GT(times.at(op).calls, 0) << op;
    EXPECT_NEAR(times.at(op).seconds, kBetweenEvents * static_cast<double>(times.at(op).calls), 1e-6) << op;
  }
}

TEST(CudaOpTimer, ReadsWhatTheDeviceHasReachedAsOpsCome) {
  cuda::emulation::asynchronous = true;
  const auto backend = cuda_under_test();
  cuda::emulation::asynchronous = false;
  Arena arena("numbers", backend->memory(), 1 << 12);
  const Tensor x = arena.tensor(4, 4, DType::f32);
  std::vector<float> host(16);
  const auto early = backend->moment();
  backend->download(x, host.data());  // waits
  EXPECT_TRUE(early->is_reached());
}

}  // namespace
}  // namespace drover
