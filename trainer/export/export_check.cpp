#include "trainer/export/export_check.h"

#include "data/token_store.h"
#include "kernels/base/units.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "trainer/export/export.h"
#include "trainer/export/token_logprobs.h"

namespace drover {

namespace {

// Why the generation path cannot be had in the memory of training; empty: it can, on every rank.
std::string why_not_served(Engine& engine, const TokenStore& documents) {
  Replica& replica = engine.replica();
  const ScoringBytes needed = scoring_bytes(engine.settings(), replica.device.mesh, documents);
  const auto lacks = [](const Arena& arena, int64_t bytes) {
    return std::max<int64_t>(0, bytes - (arena.capacity_bytes() - arena.used_bytes()));
  };
  const int64_t lacking = lacks(engine.idle_memory(), needed.cache) + lacks(replica.arenas.scratch, needed.scratch);
  const int64_t most = largest(*replica.device.mesh.world, lacking);
  if (most == 0) return {};
  return fmt::format(
      "a rank would need {:.1f} MiB more than training has planned, for keys and values and for a pass; drover export "
      "of the run compares it",
      mib(most));
}

}  // namespace

Comparison compare_trained(Engine& engine, const TokenStore& documents, const fs::path& directory) {
  Replica& replica = engine.replica();
  Comparison c{
      .tokens = documents.trained_tokens(0, documents.documents()), .dtype = engine.settings().dtype, .of_run = true};
  if (c.tokens == 0) {
    c.why["reloaded"] = c.why["served"] = kNothingToCompare;
    return c;
  }
  const std::vector<float> trained = engine_logprobs(engine, documents);
  c.logprob = compared(trained, trained).logprob;
  together(*replica.device.mesh.world, [&] { load_adapter(directory, engine.settings().model, *replica.adapter); });
  c.reloaded = compared(engine_logprobs(engine, documents), trained);
  const std::string why = why_not_served(engine, documents);
  if (why.empty()) {
    c.served = compared(served_logprobs(replica, engine.idle_memory(), documents), trained);
  } else {
    c.why["served"] = why;
  }
  return c;
}

}  // namespace drover
