// The CUDA backend on meshes whose ranks are threads: one device, staged through host memory.
#include "kernels/comm/staged.h"
#include "kernels/comm/threads.h"
#include "tests/cuda/training.h"

namespace drover {
namespace {

TEST(CudaTraining, LowRankTermsAreFusedOnEveryMesh) {
  for (const MeshShape shape : {MeshShape{.tp = 2}, MeshShape{.pp = 2}, MeshShape{.tp = 2, .pp = 2}}) {
    const Case run{.mesh = shape, .steps = 1};
    run_on_threads(shape, [&](Mesh& host) {
      const auto backend = cuda_under_test();
      Mesh mesh = make_staged_mesh(host, *backend);
      train(run, *backend, mesh);
      expect_fused(*backend, true);
    });
  }
}

}  // namespace
}  // namespace drover
