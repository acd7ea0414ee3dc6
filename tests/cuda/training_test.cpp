// Whole training steps on the CUDA backend against the CPU backend: the same engine, the same weights. In emulation,
// and on a GPU where there is one. And what a step may not do: call no fused product, move more than its batch and its
// scalars, or allocate.
#include "tests/cuda/training.h"

namespace drover {
namespace {

TEST(CudaTraining, EqualsTheCpuInFp32) {
  const auto backend = cuda_under_test();
  expect_close(train({}, {backend, make_self_mesh()}), on_cpu({}), 1e-5);
}

TEST(CudaTraining, EqualsTheCpuWithDropoutAndRecompute) {
  const Case run{.dropout = 0.1f, .recompute = true};
  const auto backend = cuda_under_test();
  expect_close(train(run, {backend, make_self_mesh()}), on_cpu(run), 1e-5);
}

// In bf16 the two round the same values at the same places but add in another order: as far apart as two roundings of a
// bf16 step may be.
TEST(CudaTraining, IsAsCloseToFp32AsTheCpuInBf16) {
  for (const int64_t head_dim : {12, 16}) {
    const Case run{.dtype = DType::bf16, .steps = 1, .head_dim = head_dim};
    const Trained exact = on_cpu({.steps = 1, .head_dim = head_dim}), cpu = on_cpu(run);
    const auto backend = cuda_under_test();
    const Trained cuda = train(run, {backend, make_self_mesh()});
    double cpu_error = 0, cuda_error = 0;
    for (const auto& [name, values] : exact.gradients) {
      cpu_error += std::pow(distance(values, cpu.gradients.at(name)), 2);
      cuda_error += std::pow(distance(values, cuda.gradients.at(name)), 2);
    }
    EXPECT_GT(cpu_error, 0);
    EXPECT_LE(std::sqrt(cuda_error), 1.2 * std::sqrt(cpu_error)) << "head_dim " << head_dim;
  }
}

// Products in fp8 quantise what flows, so that another order of sums moves some codes by a step: fp8_products.h says
// how far. Widened products of the same codes are further away.
TEST(CudaTraining, EqualsTheCpuInFp8AsFarAsRoundingAllows) {
  const double rounding = 0x1p-4 / std::sqrt(3.0);
  for (const bool recompute : {false, true}) {
    Case run{.recompute = recompute, .steps = 3, .head_dim = 16, .weights = WeightsAs::fp8, .products = Products::fp8};
    const auto backend = cuda_under_test();
    const Trained cuda = train(run, {backend, make_self_mesh()}), cpu = on_cpu(run);
    expect_close(cuda, cpu, rounding);
    run.products = Products::widened;
    EXPECT_GT(gradient_distance(on_cpu(run), cpu), 3 * gradient_distance(cuda, cpu));
  }
}

TEST(CudaTraining, TwoDeterministicRunsHaveTheSameBits) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto run = [&] {
      const auto backend = cuda_under_test(true);
      return train({.dtype = dtype, .dropout = 0.1f, .steps = 3, .head_dim = 16}, {backend, make_self_mesh()});
    };
    const Trained one = run(), other = run();
    EXPECT_EQ(one.losses, other.losses);
    EXPECT_EQ(one.norms, other.norms);
    EXPECT_EQ(one.gradients, other.gradients);
    EXPECT_EQ(one.parameters, other.parameters);
  }
}

TEST(CudaTraining, LowRankTermsAreFused) {
  for (const int64_t r : {3, 8, 16}) {
    const auto backend = cuda_under_test();
    train({.r = r, .steps = 1, .head = false}, {backend, make_self_mesh()});
    expect_fused(*backend, true);
    EXPECT_NE(backend->report().find("low-rank term fused"), std::string::npos);
  }
}

// Under dropout the backward's low-rank term needs a mask of its own: it is computed apart, and said to be.
TEST(CudaTraining, UnderDropoutTheForwardIsFusedStill) {
  const auto backend = cuda_under_test();
  train({.dropout = 0.1f, .steps = 1, .head = false}, {backend, make_self_mesh()});
  expect_fused(*backend, false);
}

TEST(CudaTraining, AStepMovesItsBatchAndItsScalars) {
  const auto backend = cuda_under_test();
  const Case run{};
  EngineSettings s = settings_of(run);
  s.traits = backend->traits();
  DrawnWeights weights(11, 0.15f, 0.5f);
  const ArenaBytes bytes = plan_rank(s, {}, {}).bytes;
  Replica replica(s, {backend, make_self_mesh()}, weights, bytes);
  Engine engine(s, replica, bytes.saved);
  replica.adapter->initialise(1);
  engine.train_step(batch_of(0), 1);  // the first may grow a workspace
  const cuda::Traffic before = backend->traffic();
  const Batch batch = batch_of(0);
  engine.train_step(batch, 2);
  const cuda::Traffic after = backend->traffic();
  // ids, positions, documents of every token; row, label and weight of a trained one; segments. A loss of each
  // micro-batch and the norm come back.
  EXPECT_LE(after.uploaded_bytes - before.uploaded_bytes, 24 * batch.tokens + 64 * 4);
  EXPECT_EQ(after.downloaded_bytes - before.downloaded_bytes, batch.total * 8 + 8);
  EXPECT_EQ(after.downloads - before.downloads, 2);
  EXPECT_EQ(after.allocations, before.allocations);
}

TEST(CudaTraining, ANormThatIsNotFiniteUpdatesNothing) {
  const auto backend = cuda_under_test();
  const Case run{};
  EngineSettings s = settings_of(run);
  s.traits = backend->traits();
  DrawnWeights weights(11, 0.15f, 0.5f);
  const ArenaBytes bytes = plan_rank(s, {}, {}).bytes;
  Replica replica(s, {backend, make_self_mesh()}, weights, bytes);
  Engine engine(s, replica, bytes.saved);
  replica.adapter->initialise(1);
  engine.accumulate_gradients(batch_of(0), 1);
  const auto before = named(replica, replica.adapter->parameters);
  const float bad = INFINITY;
  backend->upload(&bad, replica.adapter->gradients.rows_from(7, 1));
  EXPECT_FALSE(std::isfinite(engine.apply_gradients(1)));
  EXPECT_EQ(named(replica, replica.adapter->parameters), before);
  engine.train_step(batch_of(1), 2);  // nor does a good step after it
  EXPECT_EQ(named(replica, replica.adapter->parameters), before);
}

}  // namespace
}  // namespace drover
