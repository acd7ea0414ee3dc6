// The NCCL communicator over a stand-in (fake_nccl.h) whose streams are asynchronous: results, order, splits, whole
// training steps, lost and silent ranks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "kernels/base/program.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "kernels/comm/threads.h"
#include "kernels/nccl/nccl_mesh.h"
#include "kernels/nccl/watch.h"
#include "streams.h"
#include "tests/cuda/training.h"
#include "tests/nccl/fake_nccl.h"
#include "tests/nccl/on_device.h"

namespace drover::nccl {
namespace {

using testing::HasSubstr;

class Nccl : public testing::Test {
 protected:
  Nccl() { cuda::emulation::asynchronous = true; }
  ~Nccl() override {
    cuda::emulation::asynchronous = false;
    fake_remote_error(false);
    unsetenv("DROVER_COMM_TIMEOUT_S");
  }
};

// `work` on every rank of the mesh, with a backend and communicators of its own.
template <typename Work>
void on_devices(const MeshShape& shape, bool deterministic, Work&& work) {
  run_on_threads(shape, [&](Mesh& host) {
    const int device = rank_of(host.position, host.shape);
    const cuda::CudaSettings settings{.device = device, .deterministic = deterministic};
    const auto backend = std::make_shared<cuda::CudaBackend>(settings);
    work(Device{backend, make_mesh(fake_api(), host, *backend, {device, deterministic})});
  });
}

template <typename Work>
void on_ranks(const MeshShape& shape, bool deterministic, Work&& work) {
  on_devices(shape, deterministic,
             [&](Device device) { work(device.mesh, static_cast<cuda::CudaBackend&>(*device.backend)); });
}

TEST_F(Nccl, SumsOfAllSizesPitchesAndTypes) {
  for (bool deterministic : {false, true}) {
    for (int ranks : {2, 3}) {
      on_ranks({{Axis::tp, ranks}}, deterministic, [&](Mesh& mesh, cuda::CudaBackend& backend) {
        for (DType dtype : {DType::f32, DType::bf16, DType::f64}) {
          for (auto [rows, cols, margin] :
               {std::array<int64_t, 3>{1, 1, 0}, {5, 7, 0}, {5, 8, 8}, {1, 1, 3}, {200, 33, 7}}) {
            OnDevice x(backend, rows, cols, dtype, margin);
            x.set(drawn_values(mesh.tp().rank(), rows * cols));
            mesh.tp().all_reduce(x.tensor);
            EXPECT_EQ(x.get(), sum_of(ranks, rows * cols)) << rows << " × " << cols;
            if (margin > 0) {
              EXPECT_THAT(x.margin(), testing::Each(77));
            }
          }
        }
      });
    }
  }
}

// In rank order with one rounding, where NCCL's own order (here: backwards, rounded at every rank) gives other bits.
TEST_F(Nccl, DeterministicSumsAreInRankOrderAndRoundedOnce) {
  const float parts[3] = {1.0f, 0.00390625f, 0.00390625f};  // in bf16, 1 + 2^-8 rounds back to 1; 1 + 2^-7 does not
  for (bool deterministic : {false, true}) {
    on_ranks({{Axis::tp, 3}}, deterministic, [&](Mesh& mesh, cuda::CudaBackend& backend) {
      OnDevice x(backend, 1, 1, DType::bf16);
      x.set({parts[2 - mesh.tp().rank()]});
      mesh.tp().all_reduce(x.tensor);
      EXPECT_EQ(x.get()[0], deterministic ? 1.0078125 : 1.0);
    });
  }
}

TEST_F(Nccl, GathersAndBroadcasts) {
  on_ranks({{Axis::dp, 3}}, false, [](Mesh& mesh, cuda::CudaBackend& backend) {
    for (int64_t margin : {0, 8}) {
      OnDevice part(backend, 4, 5, DType::f32, margin), whole(backend, 12, 5, DType::f32, margin);
      part.set(drawn_values(mesh.dp().rank(), 20));
      mesh.dp().all_gather(part.tensor, whole.tensor);
      std::vector<double> all;
      for (int r = 0; r < 3; ++r) {
        const auto v = drawn_values(r, 20);
        all.insert(all.end(), v.begin(), v.end());
      }
      EXPECT_EQ(whole.get(), all);
      Tensor own = whole.tensor.rows_from(4 * mesh.dp().rank(), 4);  // in its place
      mesh.dp().all_gather(own, whole.tensor);
      EXPECT_EQ(whole.get(), all);
      for (int root = 0; root < 3; ++root) {
        part.set(drawn_values(mesh.dp().rank(), 20));
        mesh.dp().broadcast(part.tensor, root);
        EXPECT_EQ(part.get(), drawn_values(root, 20));
      }
      if (margin > 0) {
        EXPECT_THAT(part.margin(), testing::Each(77));
      }
    }
  });
}

// A message reads what was enqueued before it, and what is enqueued after its wait sees it arrive, without the host
// waiting.
TEST_F(Nccl, MessagesKeepTheQueuesOrder) {
  on_ranks({{Axis::pp, 2}}, false, [](Mesh& mesh, cuda::CudaBackend& backend) {
    const int me = mesh.pp().rank(), other = 1 - me;
    OnDevice out(backend, 300, 64, DType::f32), in(backend, 300, 64, DType::f32), sum(backend, 300, 64, DType::f32);
    backend.zero(sum.tensor);
    out.set(drawn_values(me, 300 * 64));
    const auto& waits = backend.traffic();
    const int64_t before = waits.downloads;
    for (int i = 0; i < 20; ++i) {
      backend.add(out.tensor, out.tensor);  // ×2
      const PeerMessage both[] = {{PeerMessage::Way::send, out.tensor, other, 0},
                                  {PeerMessage::Way::receive, in.tensor, other, 0}};
      mesh.pp().exchange(both)->wait();
      backend.copy(in.tensor, sum.tensor);
      if (i % 7 == 6) backend.copy(in.tensor, out.tensor), out.set(drawn_values(me, 300 * 64));
    }
    EXPECT_EQ(waits.downloads, before);
    std::vector<double> expected = drawn_values(other, 300 * 64);
    for (double& v : expected) v *= 64;  // six doublings since the last restart
    EXPECT_EQ(sum.get(), expected);
  });
}

// Rank 1 joins the sum only when rank 0's device is already busy with what was enqueued behind its start: one queue for
// both would never get there.
TEST_F(Nccl, AStartedSumRunsBesideWhatIsEnqueuedNext) {
  std::promise<void> computing;
  const std::shared_future<void> seen = computing.get_future().share();
  on_ranks({{Axis::tp, 2}}, false, [&](Mesh& mesh, cuda::CudaBackend& backend) {
    OnDevice x(backend, 30, 64, DType::f32), y(backend, 30, 64, DType::f32);
    x.set(drawn_values(mesh.tp().rank(), 30 * 64));
    if (mesh.tp().rank() == 1) {
      ASSERT_EQ(seen.wait_for(std::chrono::seconds(30)), std::future_status::ready);
    }
    const auto sum = mesh.tp().start_all_reduce(x.tensor);
    if (mesh.tp().rank() == 0) cuda::emulation::enqueue(backend.stream(), [&] { computing.set_value(); });
    sum->wait();
    backend.copy(x.tensor, y.tensor);  // not before the sum is there
    EXPECT_EQ(y.get(), sum_of(2, 30 * 64));
  });
}

TEST_F(Nccl, AStartedSumIsTheSameSum) {
  for (bool deterministic : {false, true}) {
    on_ranks({{Axis::tp, 3}}, deterministic, [&](Mesh& mesh, cuda::CudaBackend& backend) {
      for (int64_t margin : {0, 8}) {
        OnDevice x(backend, 20, 40, DType::bf16, margin);
        for (int i = 0; i < 10; ++i) {
          x.set(drawn_values(mesh.tp().rank(), 20 * 40));
          backend.add(x.tensor, x.tensor);  // ×2: the sum reads what was enqueued before it
          mesh.tp().start_all_reduce(x.tensor)->wait();
          std::vector<double> expected = sum_of(3, 20 * 40);
          for (double& v : expected) v *= 2;
          EXPECT_EQ(x.get(), expected);
        }
      }
    });
  }
}

// Not deterministic under tp, the sums of a micro-batch's two parts overlap with each other's computing.
TEST_F(Nccl, EveryMeshTrainsAsOneRank) {
  for (const Case& plain : {Case{}, Case{.dropout = 0.1f, .recompute = true}}) {
    const Trained one = on_cpu(plain);
    for (const MeshShape shape :
         {MeshShape{{Axis::tp, 2}}, MeshShape{{Axis::pp, 2}}, MeshShape{{Axis::tp, 2}, {Axis::pp, 2}}}) {
      for (bool deterministic : {false, true}) {
        Case run = plain;
        run.mesh = shape;
        std::mutex mutex;
        on_devices(shape, deterministic, [&](const Device& device) {
          const Trained t = train(run, device);
          const std::lock_guard lock(mutex);
          for (size_t i = 0; i < one.losses.size(); ++i) {
            EXPECT_NEAR(t.losses[i], one.losses[i], 1e-5 * one.losses[i])
                << "tp " << shape.tp() << " pp " << shape.pp();
            EXPECT_NEAR(t.norms[i], one.norms[i], 1e-5 * one.norms[i]);
          }
        });
      }
    }
  }
}

Error error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error;
  }
  return {Fault::internal, "nothing was thrown"};
}

TEST_F(Nccl, ASilentRankIsNamedAndEverythingIsAborted) {
  setenv("DROVER_COMM_TIMEOUT_S", "1", 1);
  const int64_t before = fake_aborts();
  std::atomic<bool> over = false;
  const Error error = error_of([&] {
    on_ranks({{Axis::tp, 3}}, false, [&](Mesh& mesh, cuda::CudaBackend& backend) {
      OnDevice x(backend, 4, 4, DType::f32);
      x.set(drawn_values(0, 16));
      if (mesh.tp().rank() == 1) {
        while (!over) std::this_thread::sleep_for(std::chrono::milliseconds(10));
        fail(Fault::rank_lost, "gone");  // a follower's failure
      }
      const Error mine = error_of([&] {
        mesh.tp().all_reduce(x.tensor);
        x.get();
      });
      over = true;
      throw mine;
    });
  });
  EXPECT_EQ(error.fault(), Fault::rank_hangs);
  EXPECT_THAT(error.what(), HasSubstr("tp: all_reduce of 64 bytes"));
  EXPECT_THAT(error.what(), HasSubstr("did not end in 1 s"));
  EXPECT_THAT(error.what(), HasSubstr("rank 1 of the world does not answer"));
  EXPECT_THAT(error.what(), HasSubstr("ranks 0 and 2: waiting in tp: all_reduce of 64 bytes (call "));
  EXPECT_GE(fake_aborts() - before, 4);  // two ranks' world and tp
}

TEST_F(Nccl, ARankThatNeverStartsIsNamed) {
  setenv("DROVER_COMM_TIMEOUT_S", "1", 1);
  std::atomic<int> over = 0;
  const Error error = error_of([&] {
    run_on_threads({{Axis::dp, 3}}, [&](Mesh& host) {
      cuda::CudaBackend backend({.device = host.position.dp()});
      if (host.position.dp() == 2) {
        // It speaks on the host's side, but never starts NCCL.
        host.world->gather_strings("another GPU");
        check_same(*host.world, "NCCL's version", version_of(fake_api()));
        agree_or_throw(*host.world, std::nullopt);
        gather(*host.world, ncclUniqueId{});
        while (over < 2) std::this_thread::sleep_for(std::chrono::milliseconds(10));
        fail(Fault::rank_lost, "gone");
      }
      const Error mine = error_of([&] { make_mesh(fake_api(), host, backend, {host.position.dp(), false}); });
      ++over;
      throw mine;
    });
  });
  EXPECT_EQ(error.fault(), Fault::rank_hangs);
  EXPECT_THAT(error.what(), HasSubstr("world: NCCL's start did not end in 1 s"));
  EXPECT_THAT(error.what(), HasSubstr("rank 2 of the world does not answer"));
}

TEST_F(Nccl, AnErrorThatNcclReportsEndsTheRun) {
  const Error error = error_of([&] {
    on_ranks({{Axis::dp, 2}}, false, [&](Mesh& mesh, cuda::CudaBackend& backend) {
      OnDevice x(backend, 1, 1, DType::f32);
      mesh.world->barrier();
      fake_remote_error(true);
      for (int i = 0; i < 1000; ++i) {
        mesh.dp().all_reduce(x.tensor);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
  });
  EXPECT_EQ(error.fault(), Fault::rank_lost);
  EXPECT_THAT(error.what(), HasSubstr("NCCL reports: remote process exited"));
}

// Nobody comes by after the failure: the process ends itself.
TEST(NcclDeathTest, AnIssuerThatDoesNotComeByIsEnded) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        set_exit_codes([](Fault fault) { return fault == Fault::rank_hangs ? 80 : 1; });
        cuda::emulation::asynchronous = true;
        cudaStream_t stream;
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        Watch watch(fake_api(), {.deadline_seconds = 0.1, .abort_seconds = 0.1, .notice_seconds = 0.1});
        watch.begin("dp: all_reduce of 4 bytes");
        cuda::emulation::enqueue(stream, [] { std::this_thread::sleep_for(std::chrono::seconds(60)); });
        watch.issued(stream);
        std::this_thread::sleep_for(std::chrono::seconds(30));
      },
      testing::ExitedWithCode(80), "dp: all_reduce of 4 bytes \\(call 1\\) did not end in 0.1 s");
}

TEST(NcclLibrary, IsTheOneThatTheHeaderDescribes) {
  int version = 0;
  EXPECT_EQ(library().get_version(&version), ncclSuccess);
  EXPECT_EQ(version / 100, NCCL_VERSION_CODE / 100);  // the patch may differ
  EXPECT_STREQ(library().error_string(ncclSuccess), "no error");
}

}  // namespace
}  // namespace drover::nccl
