// Training on one rank as a golden file has it: documents, micro-batches, an engine of a small model, 20 steps.
#pragma once
#include "kernels/cpu/cpu_backend.h"
#include "optim/learning_rate.h"
#include "tests/model/golden.h"

namespace drover::golden {

// Documents end to end as one micro-batch; ids and labels as the golden file has them.
inline MicroBatch micro_batch(const std::vector<Json>& documents, int64_t index) {
  MicroBatch m;
  m.index = index;
  for (const Json& document : documents) {
    const std::vector<int32_t> tokens = document.at("tokens"), labels = document.at("labels");
    m.spans.push_back({static_cast<int64_t>(m.tokens.size()), static_cast<int64_t>(tokens.size())});
    for (size_t i = 0; i < tokens.size(); ++i) {
      m.tokens.push_back(tokens[i]);
      m.labels.push_back(labels[i]);
      m.weights.push_back(labels[i] >= 0 ? 1.0f : 0.0f);
      m.positions.push_back(static_cast<int32_t>(i));
      m.documents.push_back(document.at("document"));
    }
  }
  return m;
}

inline Batch batch_of(std::vector<MicroBatch> micro_batches) {
  Batch batch;
  batch.micro_batches = std::move(micro_batches);
  batch.total = static_cast<int64_t>(batch.micro_batches.size());
  for (const MicroBatch& m : batch.micro_batches) {
    batch.tokens += static_cast<int64_t>(m.tokens.size());
    for (float w : m.weights) batch.weight_sum += w;
  }
  batch.trained_tokens = static_cast<int64_t>(batch.weight_sum);
  return batch;
}

// An engine of settings whose model and adapter are set; the rest fits two micro-batches of 300 tokens.
class Trainer {
 public:
  Trainer(EngineSettings s, WeightSource& weights) {
    s.partition = partition_layers(s.model.layers, 1, 0.5);
    s.max_positions = 150;
    s.capacity.micro_batch = {300, 300};
    s.capacity.local_micro_batches = 2;
    const ArenaBytes bytes = plan_rank(s, {}, {}).bytes;
    replica_ = std::make_unique<Replica>(s, Device{make_cpu_backend(1), make_self_mesh()}, weights, bytes);
    engine_ = std::make_unique<Engine>(s, *replica_, bytes.saved);
  }
  Engine& engine() { return *engine_; }
  AdapterSet& adapter() { return *replica_->adapter; }

  // Every factor of a flat buffer by its name on disk.
  std::map<std::string, std::vector<float>> named(Tensor flat) {
    std::map<std::string, std::vector<float>> result;
    for (const FactorSlice& f : replica_->adapter->factors()) {
      std::vector<float>& values = result[stored_name(f.name)];
      values.resize(static_cast<size_t>(f.size()));
      replica_->backend().download(view(flat, f), values.data());
    }
    return result;
  }

 private:
  std::unique_ptr<Replica> replica_;
  std::unique_ptr<Engine> engine_;
};

struct Curve {
  std::vector<StepResult> steps;
  std::map<std::string, std::vector<float>> last;
};

inline OptimizerSettings optimizer_of(const Json& golden) {
  const LearningRate rate{LearningRateShape::linear, golden.at("learning_rate"), golden.at("warmup_steps"),
                          golden.at("steps")};
  return {.learning_rate = rate,
          .beta1 = golden.at("betas").at(0),
          .beta2 = golden.at("betas").at(1),
          .eps = golden.at("eps"),
          .max_grad_norm = golden.at("max_grad_norm")};
}

// The documents and micro-batches of a golden curve.
inline Curve train(const Json& golden, Trainer& trainer) {
  const int64_t steps = golden.at("steps");
  Curve curve;
  for (int64_t step = 0; step < steps; ++step) {
    std::vector<MicroBatch> micro_batches;
    for (const Json& indices : golden.at("plan").at(static_cast<size_t>(step))) {
      std::vector<Json> documents;
      for (size_t d : indices.get<std::vector<size_t>>()) documents.push_back(golden.at("documents").at(d));
      micro_batches.push_back(micro_batch(documents, static_cast<int64_t>(micro_batches.size())));
    }
    curve.steps.push_back(trainer.engine().train_step(batch_of(std::move(micro_batches)), step + 1));
  }
  curve.last = trainer.named(trainer.adapter().parameters);
  return curve;
}

}  // namespace drover::golden
