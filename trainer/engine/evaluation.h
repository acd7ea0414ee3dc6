// The loss of a whole token store.
#pragma once
#include "trainer/engine/engine.h"

namespace drover {

class TokenStore;

struct Evaluation {
  double sum = 0, weight = 0;  // Σ w·nll and Σ w over all rows, each token once at any dp
  int64_t tokens = 0;          // that count
  bool complete = true;        // false: given up before the last row
  double loss() const { return sum / weight; }
};

// Asked between pieces of work that may be given up. Collective over the communicator, so that its ranks give up
// together.
using GiveUp = std::function<bool(Communicator&)>;

// Collective. `rows_at_once` rows go through the mesh together; `sink` as in Engine::evaluate.
Evaluation evaluate_store(Engine& engine, const TokenStore& store, int64_t micro_batch_size, int64_t rows_at_once,
                          const Engine::LogprobSink& sink = {}, const GiveUp& give_up = {});

}  // namespace drover
