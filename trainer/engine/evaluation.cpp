#include "trainer/engine/evaluation.h"

#include "data/loader.h"

namespace drover {

Evaluation evaluate_store(Engine& engine, const TokenStore& store, int64_t micro_batch_size, int64_t rows_at_once,
                          const Engine::LogprobSink& sink, const GiveUp& give_up) {
  Evaluation e;
  const Mesh& mesh = engine.replica().device.mesh;
  for (int64_t begin = 0; begin < store.rows(); begin += rows_at_once) {
    if (give_up && give_up(*mesh.world)) {
      e.complete = false;
      return e;
    }
    std::vector<int64_t> rows;
    for (int64_t r = begin; r < std::min(store.rows(), begin + rows_at_once); ++r) rows.push_back(r);
    const Batch batch = batch_of_rows(store, rows, micro_batch_size, mesh.position.dp(), mesh.shape.dp());
    if (batch.weight_sum <= 0) continue;
    e.sum += engine.evaluate(batch, sink);
    e.weight += batch.weight_sum;
    e.tokens += batch.trained_tokens;
  }
  return e;
}

}  // namespace drover
