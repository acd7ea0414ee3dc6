// A small made-up model ready to generate, on any mesh of threads or alone, and requests for it.
#pragma once
#include <gtest/gtest.h>

#include "kernels/cpu/cpu_backend.h"
#include "model/adapter_pool.h"
#include "model/generation/answers.h"
#include "tests/support/made_up.h"
#include "trainer/engine/schedule.h"

namespace drover {

inline ModelConfig small_model() {
  ModelConfig c;
  c.hidden = 64, c.layers = 4, c.heads = 4, c.kv_heads = 2, c.head_dim = 16, c.ffn = 96, c.vocab = 211;
  c.max_positions = 512;
  return c;
}

struct RoomSettings {
  ModelConfig model = small_model();
  DType dtype = DType::f32;
  int64_t positions = 256;
  int64_t blocks = 64;
  BatcherSettings batcher = {.sequences = 6, .pass_rows = 160, .dearest = {}};
  WeightSource* weights = nullptr;  // null: drawn
  WeightsAs held_as = WeightsAs::as_is;
};

// A rank's share of the model, with a batcher.
class Room {
 public:
  explicit Room(const RoomSettings& s = {}) : Room(s, make_self_mesh()) {}
  Room(const RoomSettings& s, const Mesh& mesh)
      : mesh_(mesh),
        stage_(StageShape{s.model, placement_of(s.model, mesh), s.dtype, s.positions, s.held_as},
               Loading{mesh_.tp(), *backend_, weights_, s.weights == nullptr ? drawn_ : *s.weights}),
        pool_(stage_, cache_, s.blocks),
        decoder_(stage_, mesh_, *backend_, pool_, scratch_),
        batcher_(decoder_, s.batcher) {}

  Batcher& batcher() { return batcher_; }
  Decoder& decoder() { return decoder_; }
  KvPool& pool() { return pool_; }
  AdapterPool& adapters() { return adapters_; }
  int64_t scratch_peak() const { return scratch_.peak_bytes(); }
  Answer alone(const Request& request) { return answer_all(batcher_, {request}).front(); }

 private:
  static Placement placement_of(const ModelConfig& model, const Mesh& mesh) {
    const int pp = mesh.position.pp(), stages = mesh.shape.pp();
    const LayerRange layers = partition_layers(model.layers, stages, 0.5)[static_cast<size_t>(pp)];
    return {.tp_rank = mesh.position.tp(),
            .tp_size = mesh.shape.tp(),
            .layer_begin = layers.begin,
            .layer_end = layers.end,
            .first = pp == 0,
            .last = pp == stages - 1};
  }

  Mesh mesh_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  Arena weights_{"weights", backend_->memory(), 16 << 20}, cache_{"cache", backend_->memory(), 16 << 20},
      scratch_{"scratch", backend_->memory(), 16 << 20};
  DrawnWeights drawn_{11, 0.15f, 0.5f};
  Stage stage_;
  AdapterPool adapters_{stage_, *backend_};
  KvPool pool_;
  Decoder decoder_;
  Batcher batcher_;
};

// `tokens` ids that depend on (seed, position).
inline std::vector<int32_t> made_up_ids(int64_t tokens, uint64_t seed, int64_t vocab = small_model().vocab) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < tokens; ++i) {
    ids.push_back(static_cast<int32_t>(drawn(seed, "ids", i, 0.5f, 1.0f) * static_cast<float>(vocab)));
  }
  return ids;
}

// All that requests may ask for.
inline Sampling dearest() { return {.repetition_penalty = 2, .logit_bias = {{0, 1}}, .logprobs = 20}; }

// Requests of many lengths; every other one draws its tokens, with a seed of its own, and some ask for more.
inline std::vector<Request> made_up_requests(size_t count) {
  std::vector<Request> requests;
  for (size_t i = 0; i < count; ++i) {
    const int64_t tokens = 1 + static_cast<int64_t>(i * 53 % 150);
    Request r{.ids = made_up_ids(tokens, i), .max_tokens = 1 + static_cast<int64_t>(i * 29 % 37), .number = i};
    if (i % 2 == 1) r.sampling = {.greedy = false, .temperature = 0.9f, .top_p = 0.95f, .seed = 100 + i};
    if (i % 3 == 0) r.sampling.logprobs = static_cast<int64_t>(i % 7);
    if (i % 5 == 0) r.sampling.repetition_penalty = 1.2f, r.sampling.presence_penalty = 0.5f;
    requests.push_back(r);
  }
  return requests;
}

}  // namespace drover
