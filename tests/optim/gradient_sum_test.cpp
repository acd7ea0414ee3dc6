// Micro-batches' gradients summed over accumulation, dp and tp: what adds up, and when the bits do not depend on who
// had which.
#include "optim/gradient_sum.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/comm/threads.h"
#include "kernels/cpu/cpu_backend.h"

namespace drover {
namespace {

constexpr int64_t kSize = 11, kWhole = 4, kMicroBatches = 7;

float gradient_of(int64_t micro_batch, int64_t i) {
  return std::sin(static_cast<float>(13 * micro_batch + i)) * std::pow(7.0f, static_cast<float>(micro_batch % 5));
}

// The sum on rank 0 of the mesh; micro-batches are dealt to dp in runs.
std::vector<float> summed(const MeshShape& shape, bool deterministic, int64_t micro_batches = kMicroBatches) {
  std::vector<float> result;
  run_on_threads(shape, [&](Mesh& mesh) {
    const auto backend = make_cpu_backend(1);
    Arena arena("tree", backend->memory(), 1 << 20);
    Tensor gradients = arena.tensor(kSize, 1, DType::f32);
    GradientSum sum(gradients, kWhole, mesh, *backend, arena, {deterministic, kMicroBatches});
    for (int step = 0; step < 2; ++step) {  // the second begins anew
      sum.start();
      const int64_t dp = mesh.position.dp(), all = mesh.shape.dp();
      for (int64_t m = micro_batches * dp / all; m < micro_batches * (dp + 1) / all; ++m) {
        for (int64_t i = 0; i < kSize; ++i) gradients.as<float>()[i] += gradient_of(m, i);
        sum.add_micro_batch(m);
      }
      sum.finish();
    }
    if (mesh.world->rank() == 0) result.assign(gradients.as<float>(), gradients.as<float>() + kSize);
  });
  return result;
}

double expected(int64_t i) {
  double sum = 0;
  for (int64_t m = 0; m < kMicroBatches; ++m) sum += gradient_of(m, i);
  return sum;
}

TEST(GradientSum, AddsAllMicroBatches) {
  for (const bool deterministic : {false, true}) {
    for (const int replicas : {1, 2, 3, 8}) {
      const std::vector<float> sum = summed({{Axis::dp, replicas}}, deterministic);
      for (int64_t i = 0; i < kSize; ++i) EXPECT_NEAR(sum[static_cast<size_t>(i)], expected(i), 1e-3) << i;
    }
  }
}

TEST(GradientSum, DeterministicBitsAreTheMicroBatchesAlone) {
  const std::vector<float> one = summed({}, true);
  for (const int replicas : {2, 3, 8}) EXPECT_EQ(summed({{Axis::dp, replicas}}, true), one);
  EXPECT_NE(summed({}, false), summed({{Axis::dp, 3}}, false));
}

TEST(GradientSum, OnlyTheWholePartIsSummedOverTp) {
  const std::vector<float> one = summed({}, true), two = summed({{Axis::tp, 2}}, true);
  for (size_t i = 0; i < kSize; ++i) EXPECT_EQ(two[i], static_cast<int64_t>(i) < kWhole ? 2 * one[i] : one[i]) << i;
}

TEST(GradientSum, OfNothingIsZero) { EXPECT_EQ(summed({{Axis::dp, 2}}, true, 0), std::vector<float>(kSize)); }

}  // namespace
}  // namespace drover
