// Whole training steps of a tiny model, for the tests of the CUDA backend: the same engine and weights on any backend,
// and what is compared.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/support/made_up.h"
#include "trainer/engine/plan.h"

namespace drover {

// A fresh CUDA backend: over the emulation or on a GPU.
inline std::shared_ptr<cuda::CudaBackend> cuda_under_test(bool deterministic = false) {
  return std::make_shared<cuda::CudaBackend>(cuda::CudaSettings{.deterministic = deterministic});
}

struct Case {
  DType dtype = DType::f32;
  float dropout = 0;
  bool recompute = false;
  MeshShape mesh = {};
  int64_t r = 3;
  int64_t steps = 2;
  int64_t head_dim = 12;  // 16: on a GPU in bf16 cuDNN's attention takes it
  bool head = true;       // has an adapter too, whose low-rank terms are products of their own
  WeightsAs weights = WeightsAs::as_is;
  Products products = Products::widened;
};

inline EngineSettings settings_of(const Case& run) {
  EngineSettings s;
  s.model.hidden = 48, s.model.layers = 2, s.model.heads = 4, s.model.kv_heads = 2, s.model.head_dim = run.head_dim,
  s.model.ffn = 64, s.model.vocab = 101, s.model.max_positions = 64;
  s.adapter = adapter_layout(s.model, [&](const std::string& path) -> std::optional<LowRankSpec> {
    if (path == "lm_head" && !run.head) return std::nullopt;
    return LowRankSpec{path.ends_with("v_proj") ? run.r + 1 : run.r, 1.5f};
  });
  s.partition = partition_layers(s.model.layers, run.mesh.pp(), 0.5);
  s.dtype = run.dtype;
  s.weights = run.weights;
  s.products = run.products;
  s.max_positions = 32;
  s.capacity.micro_batch = {32, 32};
  s.capacity.local_micro_batches = 2;
  s.least_part_rows = 1;  // the first micro-batch passes in parts of 11 and 8 rows where sums overlap
  s.dropout = run.dropout;
  s.recompute = run.recompute;
  s.optimizer = {
      .learning_rate = {LearningRateShape::constant, 5e-3}, .eps = 1e-3, .weight_decay = 0.01, .max_grad_norm = 0.05};
  return s;
}

inline Batch batch_of(int64_t step) {
  Batch batch;
  batch.total = 2;
  batch.micro_batches = {made_up_micro_batch(3, std::vector<int64_t>{11, 1, 7}, static_cast<int>(10 * step), 101, 0),
                         made_up_micro_batch(3, std::vector<int64_t>{13}, static_cast<int>(10 * step + 5), 101, 1)};
  for (const MicroBatch& m : batch.micro_batches) {
    for (float w : m.weights) batch.weight_sum += w;
    batch.tokens += static_cast<int64_t>(m.tokens.size());
  }
  return batch;
}

struct Trained {
  std::vector<double> losses, norms;
  std::map<std::string, std::vector<float>> gradients,
      parameters;  // of the first step, after the last; this rank's slices
};

inline std::map<std::string, std::vector<float>> named(const Replica& replica, Tensor flat) {
  std::map<std::string, std::vector<float>> result;
  for (const FactorSlice& f : replica.adapter->factors()) {
    std::vector<float>& values = result[f.name];
    values.resize(static_cast<size_t>(f.size()));
    replica.backend().download(view(flat, f), values.data());
  }
  return result;
}

inline Trained train(const Case& run, const Device& device) {
  EngineSettings s = settings_of(run);
  s.traits = device.backend->traits();
  s.overlaps_sums = device.mesh.tp().overlaps_sums();
  DrawnWeights weights(11, 0.15f, 0.5f);
  const ArenaBytes planned = plan_rank(s, run.mesh, device.mesh.position).bytes;
  Replica replica(s, device, weights, planned);
  Engine engine(s, replica, planned.saved);
  replica.adapter->load([](const FactorSlice& f, float* values) {
    for (int64_t r = 0; r < f.row_count; ++r) {  // by global position, so that every mesh starts alike
      for (int64_t c = 0; c < f.col_count; ++c)
        *values++ =
            drawn(5, f.name, (f.row_begin + r) * f.cols + f.col_begin + c, 0, f.factor == Factor::b ? 0.3f : 0.5f);
    }
  });
  Trained t;
  for (int64_t step = 0; step < run.steps; ++step) {
    t.losses.push_back(engine.accumulate_gradients(batch_of(step), step + 1));
    if (step == 0) t.gradients = named(replica, replica.adapter->gradients);
    t.norms.push_back(engine.apply_gradients(step + 1));
  }
  t.parameters = named(replica, replica.adapter->parameters);
  EXPECT_EQ(engine.peak().weights, planned.weights);  // strips included
  EXPECT_EQ(engine.peak().adapter, planned.adapter);
  EXPECT_LE(engine.peak().total(), planned.total());
  return t;
}

inline Trained on_cpu(const Case& run) { return train(run, {make_cpu_backend(1), make_self_mesh()}); }

inline double size_of_all(const std::vector<float>& x) {
  double s = 0;
  for (float v : x) s += static_cast<double>(v) * v;
  return std::sqrt(s);
}
inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double s = 0;
  for (size_t i = 0; i < a.size(); ++i) s += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  return std::sqrt(s);
}

inline void expect_close(const Trained& cuda, const Trained& cpu, double bound) {
  for (size_t i = 0; i < cpu.losses.size(); ++i) {
    EXPECT_NEAR(cuda.losses[i], cpu.losses[i], bound * cpu.losses[i]);
    EXPECT_GT(cpu.norms[i], 0.05);
    EXPECT_NEAR(cuda.norms[i], cpu.norms[i], bound * cpu.norms[i]);
  }
  for (const auto& [kind, theirs, ours] :
       {std::tuple{"gradient", &cpu.gradients, &cuda.gradients}, {"parameter", &cpu.parameters, &cuda.parameters}}) {
    EXPECT_EQ(theirs->size(), ours->size());
    for (const auto& [name, values] : *theirs) {
      EXPECT_GT(size_of_all(values), 0) << name;
      EXPECT_LE(distance(values, ours->at(name)), bound * size_of_all(values)) << kind << ' ' << name;
    }
  }
}

// ‖a − b‖ / ‖b‖ over all gradients.
inline double gradient_distance(const Trained& a, const Trained& b) {
  double difference = 0, size = 0;
  for (const auto& [name, values] : b.gradients) {
    difference += std::pow(distance(values, a.gradients.at(name)), 2);
    size += std::pow(size_of_all(values), 2);
  }
  return std::sqrt(difference / size);
}

inline void expect_fused(const cuda::CudaBackend& backend, bool backward_too) {
  EXPECT_FALSE(backend.linear_paths().forward.empty());
  EXPECT_FALSE(backend.linear_paths().backward.empty());
  for (const auto& [shape, n] : backend.linear_paths().forward)
    EXPECT_EQ(n.unfused, 0) << shape.first << " to " << shape.second;
  int64_t fused = 0;
  for (const auto& [shape, n] : backend.linear_paths().backward) {
    EXPECT_EQ(n.unfused, 0) << shape.first << " to " << shape.second;
    fused += n.fused;
  }
  EXPECT_EQ(fused > 0, backward_too);
}

}  // namespace drover
