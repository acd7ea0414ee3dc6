#include "trainer/export/token_logprobs.h"

#include <algorithm>
#include <map>

#include "data/token_store.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "trainer/engine/evaluation.h"
#include "trainer/engine/plan.h"

namespace drover {

namespace {

constexpr int64_t kPassRows = 256;

struct ScoredToken {
  int64_t document;
  float logprob;
};

// Of all ranks, in the documents' order: each document was scored by one replica, of which one rank speaks.
std::vector<float> gathered(const Mesh& mesh, const std::vector<ScoredToken>& mine) {
  std::map<int64_t, std::vector<float>> documents;
  for (const std::vector<ScoredToken>& tokens : gather_lists<ScoredToken>(*mesh.world, mine)) {
    for (const ScoredToken& token : tokens) documents[token.document].push_back(token.logprob);
  }
  std::vector<float> all;
  for (const auto& [document, logprobs] : documents) all.insert(all.end(), logprobs.begin(), logprobs.end());
  return all;
}

// The documents are asked for on every rank of a replica; those of its share.
std::vector<ScoredToken> scored_share(Batcher& batcher, const TokenStore& documents, const Mesh& mesh) {
  std::vector<int64_t> share;  // by request
  for (int64_t d = mesh.position.dp(); d < documents.documents(); d += mesh.shape.dp()) {
    const auto ids = documents.document(d).ids;
    batcher.submit({.ids = {ids.begin(), ids.end()}, .max_tokens = 0, .prompt_logprobs = 0});
    share.push_back(d);
  }
  std::vector<std::vector<float>> logprobs(share.size());  // from the second token of each on
  while (!batcher.idle()) {
    for (const Event& event : batcher.step()) {
      if (const auto* error = std::get_if<Error>(&event.what)) throw *error;
      const auto* scored = std::get_if<Scored>(&event.what);
      if (scored == nullptr) continue;
      for (const Chosen& token : scored->tokens) logprobs[event.request].push_back(token.logprob);
    }
  }
  std::vector<ScoredToken> tokens;
  for (size_t i = 0; i < share.size(); ++i) {
    const Document document = documents.document(share[i]);
    require(logprobs[i].size() + 1 == document.ids.size(), "every token but the first is scored");
    for (size_t t = 1; t < document.ids.size(); ++t) {
      if (document.trained[t] != 0) tokens.push_back({share[i], logprobs[i][t - 1]});
    }
  }
  return tokens;
}

}  // namespace

int64_t rows_of_a_micro_batch(const Capacity& capacity, const TokenStore& documents) {
  const MicroBatchSize most = capacity.evaluation.value_or(capacity.micro_batch);
  const auto fit = [&](int64_t rows) {
    for (int64_t first = 0; first < documents.rows(); first += rows) {
      const int64_t last = std::min(first + rows, documents.rows());
      int64_t tokens = 0;
      for (int64_t row = first; row < last; ++row) tokens += documents.row_tokens(row);
      if (tokens > most.tokens || documents.trained_tokens(first, last) > most.trained_tokens) return false;
    }
    return true;
  };
  int64_t rows = documents.rows();
  while (rows > 1 && !fit(rows)) --rows;
  return rows;
}

std::vector<float> engine_logprobs(Engine& engine, const TokenStore& documents) {
  const Mesh& mesh = engine.replica().device.mesh;
  std::vector<ScoredToken> mine;
  const auto sink = [&](const MicroBatch& m, std::span<const float> logprobs) {
    size_t next = 0;
    for (size_t t = 0; t < m.tokens.size() && mesh.position.tp() == 0; ++t) {
      if (m.labels[t] >= 0) mine.push_back({m.documents[t], logprobs[next++]});
    }
  };
  const int64_t rows = rows_of_a_micro_batch(engine.settings().capacity, documents);
  evaluate_store(engine, documents, rows, rows * engine.settings().capacity.local_micro_batches * mesh.shape.dp(),
                 sink);
  return gathered(mesh, mine);
}

Scoring scoring_of(const TokenStore& documents) {
  return {.batcher = {.sequences = 1, .pass_rows = kPassRows, .prompt_logprobs = 0},
          .blocks = KvPool::blocks_for(documents.longest_document() + 1)};
}

ScoringBytes scoring_bytes(const EngineSettings& settings, const Mesh& mesh, const TokenStore& documents) {
  ReplicaSettings replica = settings;
  replica.train = false;
  NoWeights nothing(replica.stored);
  Replica counted(replica, count_device(settings.traits, mesh.shape, mesh.position), nothing, kPlenty);
  const int64_t before = counted.arenas.scratch.used_bytes();
  const Scoring scoring = scoring_of(documents);
  KvPool pool(counted.stage, counted.arenas.cache, scoring.blocks);
  Decoder decoder(counted.stage, counted.device.mesh, counted.backend(), pool, counted.arenas.scratch);
  Batcher::rehearse(decoder, scoring.batcher);
  return {.cache = counted.arenas.cache.peak_bytes(), .pass = counted.arenas.scratch.peak_bytes() - before};
}

std::vector<float> served_logprobs(Replica& replica, const ScoringMemory& memory, const TokenStore& documents) {
  const Mesh& mesh = replica.device.mesh;
  const Scoring scoring = scoring_of(documents);
  const Frame frame(memory.cache);
  KvPool pool(replica.stage, memory.cache, scoring.blocks);
  Decoder decoder(replica.stage, mesh, replica.backend(), pool, memory.pass);
  Batcher batcher(decoder, scoring.batcher);
  std::vector<ScoredToken> mine;
  together(*mesh.world, [&] { mine = scored_share(batcher, documents, mesh); });
  if (mesh.position.tp() != 0 || mesh.position.pp() != 0) mine.clear();
  return gathered(mesh, mine);
}

}  // namespace drover
