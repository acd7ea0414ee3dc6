// ln p of every trained token of a few documents, each a row of its own: as the engine computes it that trains, and as
// the generation path does by which answers are given. In the documents' order.
#pragma once
#include "model/generation/batcher.h"
#include "trainer/engine/engine.h"

namespace drover {

class TokenStore;

// Of engine_logprobs: as many as fit what an evaluation was planned for, wherever they stand.
int64_t rows_of_a_micro_batch(const Capacity& capacity, const TokenStore& documents);

// Collective; every rank gets all. No document is longer than one of the data that the engine was planned for.
std::vector<float> engine_logprobs(Engine& engine, const TokenStore& documents);

// How the generation path scores documents: one at a time, in short passes.
struct Scoring {
  BatcherSettings batcher;
  int64_t blocks = 0;  // of keys and values
};
Scoring scoring_of(const TokenStore& documents);

struct ScoringBytes {
  int64_t cache = 0, pass = 0;
};
// What served_logprobs takes of the two arenas, on this rank of the mesh.
ScoringBytes scoring_bytes(const EngineSettings& settings, const Mesh& mesh, const TokenStore& documents);

// Where keys and values lie meanwhile, and where a pass computes; may be one arena.
struct ScoringMemory {
  Arena &cache, &pass;
};

// Collective; every rank gets all. With the replica's own adapter, if it has one. A document has fewer tokens than the
// stage has positions. non_finite where logits are.
std::vector<float> served_logprobs(Replica& replica, const ScoringMemory& memory, const TokenStore& documents);

}  // namespace drover
