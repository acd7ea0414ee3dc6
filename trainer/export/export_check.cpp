#include "trainer/export/export_check.h"

#include "data/token_store.h"
#include "kernels/base/units.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "trainer/export/export.h"
#include "trainer/export/logprob_sample.h"
#include "trainer/export/token_logprobs.h"
#include "trainer/setup/base_format.h"

namespace drover {

namespace {

struct Room {
  ScoringMemory memory;
  int64_t lacking = 0;  // bytes
};

// Where training leaves most room between two steps: passes may compute where activations are kept, too.
Room room_of(Engine& engine, const ScoringBytes& needed) {
  Arena &idle = engine.idle_memory(), &scratch = engine.replica().arenas.scratch;
  const auto lacks = [](const Arena& arena, int64_t bytes) {
    return std::max<int64_t>(0, bytes - (arena.capacity_bytes() - arena.used_bytes()));
  };
  const int64_t apart = lacks(idle, needed.cache) + lacks(scratch, needed.pass);
  const int64_t in_one = lacks(idle, needed.cache + needed.pass);
  return in_one <= apart ? Room{{idle, idle}, in_one} : Room{{idle, scratch}, apart};
}

}  // namespace

Comparison compare_trained(Engine& engine, const TokenStore& documents, const fs::path& directory) {
  Replica& replica = engine.replica();
  Comparison c{.tokens = documents.trained_tokens(0, documents.documents()),
               .dtype = engine.settings().dtype,
               .base_weights = base_format(engine.settings()),
               .in_fp8 = engine.settings().products == Products::fp8,
               .of_run = true};
  if (c.tokens == 0) {
    c.why["reloaded"] = c.why["served"] = kNothingToCompare;
    return c;
  }
  const std::vector<float> trained = engine_logprobs(engine, documents);
  c.logprob = compared(trained, trained).logprob;
  c.sample = sample_json(documents, trained);
  together(*replica.device.mesh.world, [&] { load_adapter(directory, engine.settings().model, *replica.adapter); });
  c.reloaded = compared(engine_logprobs(engine, documents), trained);
  const Room room = room_of(engine, scoring_bytes(engine.settings(), replica.device.mesh, documents));
  const int64_t lacking = largest(*replica.device.mesh.world, room.lacking);
  if (lacking == 0) {
    c.served = compared(served_logprobs(replica, room.memory, documents), trained);
  } else {
    c.why["served"] = fmt::format(
        "a rank would need {:.1f} MiB more than training has planned, for keys and values and for a pass; drover "
        "export of the run compares it",
        mib(lacking));
  }
  return c;
}

}  // namespace drover
