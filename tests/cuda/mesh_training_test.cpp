// The CUDA backend on meshes whose ranks are threads: one device, staged through host memory.
#include "kernels/comm/staged.h"
#include "kernels/comm/threads.h"
#include "tests/cuda/training.h"

namespace drover {
namespace {

TEST(CudaTraining, LowRankTermsAreFusedOnEveryMesh) {
  for (const MeshShape shape :
       {MeshShape{{Axis::tp, 2}}, MeshShape{{Axis::pp, 2}}, MeshShape{{Axis::tp, 2}, {Axis::pp, 2}}}) {
    const Case run{.mesh = shape, .steps = 1, .head = false};
    run_on_threads(shape, [&](Mesh& host) {
      const auto backend = cuda_under_test();
      Mesh mesh = make_staged_mesh(host, *backend);
      train(run, {backend, mesh});
      expect_fused(*backend, true);
    });
  }
}

TEST(CudaTraining, StagedMeshesTrainAsOneRank) {
  const Case plain{};
  const Trained one = on_cpu(plain);
  for (const MeshShape shape :
       {MeshShape{{Axis::tp, 2}}, MeshShape{{Axis::pp, 2}}, MeshShape{{Axis::tp, 2}, {Axis::pp, 2}}}) {
    Case run = plain;
    run.mesh = shape;
    run_on_threads(shape, [&](Mesh& host) {
      const auto backend = cuda_under_test();
      Mesh mesh = make_staged_mesh(host, *backend);
      const Trained t = train(run, {backend, mesh});
      for (size_t i = 0; i < one.losses.size(); ++i) {
        EXPECT_NEAR(t.losses[i], one.losses[i], 1e-5 * one.losses[i]) << "tp " << shape.tp() << " pp " << shape.pp();
        EXPECT_NEAR(t.norms[i], one.norms[i], 1e-5 * one.norms[i]) << "tp " << shape.tp() << " pp " << shape.pp();
      }
    });
  }
}

}  // namespace
}  // namespace drover
