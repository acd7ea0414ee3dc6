// Whole training steps on the CUDA backend (its kernels run on the host here) against the CPU backend: the same engine, the same weights.
// And what a step may not do: call no fused product, move more than its batch and its scalars, or allocate.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/comm/threads.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/support/made_up.h"
#include "trainer/plan.h"

namespace drover {
namespace {

// The emulated device's memory is the host's, and communicators of tests move host memory.
class SeenAsHost : public Memory {
 public:
  explicit SeenAsHost(Memory& inner) : inner_(inner) {}
  void* allocate(int64_t bytes) override { return inner_.allocate(bytes); }
  void release(void* block, int64_t bytes) override { inner_.release(block, bytes); }
  Where where() const override { return Where::host; }

 private:
  Memory& inner_;
};
class EmulatedCuda : public cuda::CudaBackend {
 public:
  EmulatedCuda() : CudaBackend({}), seen_(CudaBackend::memory()) {}
  Memory& memory() override { return seen_; }

 private:
  SeenAsHost seen_;
};

struct Case {
  DType dtype = DType::f32;
  float dropout = 0;
  bool recompute = false;
  MeshShape mesh = {};
  int64_t r = 3;
  int64_t steps = 2;
};

EngineSettings settings_of(const Case& run) {
  EngineSettings s;
  s.model.hidden = 48, s.model.layers = 2, s.model.heads = 4, s.model.kv_heads = 2, s.model.head_dim = 12, s.model.ffn = 64, s.model.vocab = 101, s.model.max_positions = 64;
  s.adapter = adapter_layout(s.model, [&](const std::string& path) { return LowRankSpec{path.ends_with("v_proj") ? run.r + 1 : run.r, 1.5f}; });
  s.partition = partition_layers(s.model.layers, run.mesh.pp, 0.5);
  s.dtype = run.dtype;
  s.max_positions = 32;
  s.micro_batch_tokens = 32;
  s.local_micro_batches = 2;
  s.dropout = run.dropout;
  s.recompute = run.recompute;
  return s;
}

Batch batch_of(int64_t step) {
  Batch batch;
  batch.total = 2;
  batch.micro_batches = {made_up_micro_batch(3, std::vector<int64_t>{11, 1, 7}, static_cast<int>(10 * step), 101, 0), made_up_micro_batch(3, std::vector<int64_t>{13}, static_cast<int>(10 * step + 5), 101, 1)};
  for (const MicroBatch& m : batch.micro_batches) {
    for (float w : m.weights) batch.weight_sum += w;
    batch.tokens += static_cast<int64_t>(m.tokens.size());
  }
  return batch;
}

struct Trained {
  std::vector<double> losses, norms;
  std::map<std::string, std::vector<float>> gradients, parameters;  // of the first step, after the last; this rank's slices
};

std::map<std::string, std::vector<float>> named(Engine& engine, Tensor flat) {
  std::map<std::string, std::vector<float>> result;
  for (const FactorSlice& f : engine.adapter()->factors()) {
    std::vector<float>& values = result[f.name];
    values.resize(static_cast<size_t>(f.size()));
    engine.backend().download(engine.adapter()->view(flat, f), values.data());
  }
  return result;
}

Trained train(const Case& run, Backend& backend, Mesh& mesh) {
  EngineSettings s = settings_of(run);
  s.strip_multiple = backend.strip_multiple();
  DrawnWeights weights(11, 0.15f, 0.5f);
  const ArenaBytes planned = plan_rank(s, run.mesh, mesh.position).bytes;
  Engine engine(s, backend, mesh, weights, planned);
  engine.adapter()->load([](const FactorSlice& f, float* values) {
    for (int64_t i = 0; i < f.size(); ++i) values[i] = drawn(5, f.name, i, 0, f.is_b ? 0.3f : 0.5f);
  });
  Trained t;
  for (int64_t step = 0; step < run.steps; ++step) {
    t.losses.push_back(engine.accumulate_gradients(batch_of(step), static_cast<uint64_t>(step) + 1));
    if (step == 0) t.gradients = named(engine, engine.adapter()->gradients);
    StepSettings settings;
    settings.adamw = {.learning_rate = 5e-3, .eps = 1e-3, .weight_decay = 0.01, .step = step + 1};
    settings.max_grad_norm = 0.05f;
    t.norms.push_back(engine.apply_gradients(settings));
  }
  t.parameters = named(engine, engine.adapter()->parameters);
  EXPECT_EQ(engine.peak().weights, planned.weights);  // strips included
  EXPECT_EQ(engine.peak().adapter, planned.adapter);
  EXPECT_LE(engine.peak().total(), planned.total());
  return t;
}

Trained on_cpu(const Case& run) {
  const auto backend = make_cpu_backend(1);
  Mesh mesh = make_self_mesh();
  return train(run, *backend, mesh);
}

double size_of_all(const std::vector<float>& x) {
  double s = 0;
  for (float v : x) s += static_cast<double>(v) * v;
  return std::sqrt(s);
}
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double s = 0;
  for (size_t i = 0; i < a.size(); ++i) s += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  return std::sqrt(s);
}

void expect_close(const Trained& cuda, const Trained& cpu, double bound) {
  for (size_t i = 0; i < cpu.losses.size(); ++i) {
    EXPECT_NEAR(cuda.losses[i], cpu.losses[i], bound * cpu.losses[i]);
    EXPECT_GT(cpu.norms[i], 0.05);
    EXPECT_NEAR(cuda.norms[i], cpu.norms[i], bound * cpu.norms[i]);
  }
  for (const auto& [kind, theirs, ours] : {std::tuple{"gradient", &cpu.gradients, &cuda.gradients}, {"parameter", &cpu.parameters, &cuda.parameters}}) {
    EXPECT_EQ(theirs->size(), ours->size());
    for (const auto& [name, values] : *theirs) {
      EXPECT_GT(size_of_all(values), 0) << name;
      EXPECT_LE(distance(values, ours->at(name)), bound * size_of_all(values)) << kind << ' ' << name;
    }
  }
}

TEST(CudaTraining, EqualsTheCpuInFp32) {
  EmulatedCuda backend;
  Mesh mesh = make_self_mesh();
  expect_close(train({}, backend, mesh), on_cpu({}), 1e-5);
}

TEST(CudaTraining, EqualsTheCpuWithDropoutAndRecompute) {
  const Case run{.dropout = 0.1f, .recompute = true};
  EmulatedCuda backend;
  Mesh mesh = make_self_mesh();
  expect_close(train(run, backend, mesh), on_cpu(run), 1e-5);
}

// In bf16 the two round the same values at the same places but add in another order: as far apart as two roundings of a bf16 step may be.
TEST(CudaTraining, IsAsCloseToFp32AsTheCpuInBf16) {
  const Trained exact = on_cpu({.steps = 1}), cpu = on_cpu({.dtype = DType::bf16, .steps = 1});
  EmulatedCuda backend;
  Mesh mesh = make_self_mesh();
  const Trained cuda = train({.dtype = DType::bf16, .steps = 1}, backend, mesh);
  double cpu_error = 0, cuda_error = 0;
  for (const auto& [name, values] : exact.gradients) {
    cpu_error += std::pow(distance(values, cpu.gradients.at(name)), 2);
    cuda_error += std::pow(distance(values, cuda.gradients.at(name)), 2);
  }
  EXPECT_GT(cpu_error, 0);
  EXPECT_LE(std::sqrt(cuda_error), 1.2 * std::sqrt(cpu_error));
}

void expect_fused(const cuda::CudaBackend& backend, bool backward_too) {
  EXPECT_FALSE(backend.linear_paths().forward.empty());
  EXPECT_FALSE(backend.linear_paths().backward.empty());
  for (const auto& [shape, n] : backend.linear_paths().forward) EXPECT_EQ(n.unfused, 0) << shape.first << " to " << shape.second;
  int64_t fused = 0;
  for (const auto& [shape, n] : backend.linear_paths().backward) {
    EXPECT_EQ(n.unfused, 0) << shape.first << " to " << shape.second;
    fused += n.fused;
  }
  EXPECT_EQ(fused > 0, backward_too);
}

TEST(CudaTraining, LowRankTermsAreFused) {
  for (const int64_t r : {3, 8, 16}) {
    EmulatedCuda backend;
    Mesh mesh = make_self_mesh();
    train({.r = r, .steps = 1}, backend, mesh);
    expect_fused(backend, true);
    EXPECT_NE(backend.report().find("low-rank term fused"), std::string::npos);
  }
}

TEST(CudaTraining, LowRankTermsAreFusedOnEveryMesh) {
  for (const MeshShape shape : {MeshShape{.tp = 2}, MeshShape{.pp = 2}, MeshShape{.tp = 2, .pp = 2}}) {
    const Case run{.mesh = shape, .steps = 1};
    run_on_threads(shape, [&](Mesh& mesh) {
      EmulatedCuda backend;
      train(run, backend, mesh);
      expect_fused(backend, true);
    });
  }
}

// Under dropout the backward's low-rank term needs a mask of its own: it is computed apart, and said to be.
TEST(CudaTraining, UnderDropoutTheForwardIsFusedStill) {
  EmulatedCuda backend;
  Mesh mesh = make_self_mesh();
  train({.dropout = 0.1f, .steps = 1}, backend, mesh);
  expect_fused(backend, false);
}

TEST(CudaTraining, AStepMovesItsBatchAndItsScalars) {
  EmulatedCuda backend;
  Mesh mesh = make_self_mesh();
  const Case run{};
  EngineSettings s = settings_of(run);
  s.strip_multiple = backend.strip_multiple();
  DrawnWeights weights(11, 0.15f, 0.5f);
  Engine engine(s, backend, mesh, weights, plan_rank(s, {}, {}).bytes);
  engine.adapter()->initialise(1);
  StepSettings settings;
  settings.adamw.learning_rate = 1e-3;
  engine.train_step(batch_of(0), settings);  // the first may grow a workspace
  const cuda::Traffic before = backend.traffic();
  const Batch batch = batch_of(0);
  settings.adamw.step = 2;
  engine.train_step(batch, settings);
  const cuda::Traffic after = backend.traffic();
  // ids, positions, documents of every token; row, label and weight of a trained one; segments. A loss of each micro-batch and the norm come back.
  EXPECT_LE(after.uploaded_bytes - before.uploaded_bytes, 24 * batch.tokens + 64 * 4);
  EXPECT_EQ(after.downloaded_bytes - before.downloaded_bytes, batch.total * 8 + 8);
  EXPECT_EQ(after.downloads - before.downloads, 2);
  EXPECT_EQ(after.allocations, before.allocations);
}

TEST(CudaTraining, ANormThatIsNotFiniteUpdatesNothing) {
  EmulatedCuda backend;
  Mesh mesh = make_self_mesh();
  const Case run{};
  EngineSettings s = settings_of(run);
  s.strip_multiple = backend.strip_multiple();
  DrawnWeights weights(11, 0.15f, 0.5f);
  Engine engine(s, backend, mesh, weights, plan_rank(s, {}, {}).bytes);
  engine.adapter()->initialise(1);
  engine.accumulate_gradients(batch_of(0), 1);
  const auto before = named(engine, engine.adapter()->parameters);
  const float bad = INFINITY;
  backend.upload(&bad, engine.adapter()->gradients.rows_from(7, 1));
  EXPECT_FALSE(std::isfinite(engine.apply_gradients({.adamw = {.learning_rate = 1}, .max_grad_norm = 1})));
  EXPECT_EQ(named(engine, engine.adapter()->parameters), before);
}

}  // namespace
}  // namespace drover
