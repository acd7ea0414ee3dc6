#include "trainer/export/export_check.h"

#include "kernels/comm/agree.h"
#include "trainer/export/export.h"
#include "trainer/export/relative_distance.h"

namespace drover {

namespace {

std::vector<float> logprobs_of(Engine& engine, const Batch& batch) {
  std::vector<float> all;
  engine.evaluate(
      batch, [&](const MicroBatch&, std::span<const float> some) { all.insert(all.end(), some.begin(), some.end()); });
  return all;
}

}  // namespace

double exported_distance(Engine& engine, const fs::path& directory, const Batch& batch) {
  Replica& replica = engine.replica();
  const std::vector<float> trained = logprobs_of(engine, batch);
  together(*replica.device.mesh.world, [&] { load_adapter(directory, engine.settings().model, *replica.adapter); });
  return RelativeDistance(logprobs_of(engine, batch), trained).value();
}

}  // namespace drover
