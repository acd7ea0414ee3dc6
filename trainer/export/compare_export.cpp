#include "trainer/export/compare_export.h"

#include "data/token_store.h"
#include "kernels/base/units.h"
#include "kernels/cpu/cpu_backend.h"
#include "trainer/engine/plan.h"
#include "trainer/export/compared_documents.h"
#include "trainer/export/export.h"
#include "trainer/export/logprob_sample.h"
#include "trainer/export/merged_weights.h"
#include "trainer/export/token_logprobs.h"
#include "trainer/run/process_memory.h"
#include "trainer/run/run_identity.h"
#include "trainer/setup/adapter_setup.h"
#include "trainer/setup/base_format.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/model_check.h"

namespace drover {

namespace {

constexpr double kMoreMemory = 1.1;  // × the arenas and the workspace

TokenStore documents_of(const ExportedAdapter& adapter, ModelDirectory& base) {
  const auto alone = make_self_communicator("world");
  check_same_adapter(adapter.checkpoint, adapter.recipe,
                     check_weights_together(base, {0, base.config().layers}, *alone));
  return compared_documents(adapter.recipe, stored_data(adapter.recipe, adapter.run / "data"));
}

EngineSettings settings_of(const ExportedAdapter& adapter, const ModelConfig& base, const TokenStore& documents) {
  Recipe recipe = adapter.recipe;
  recipe.parallel = {};
  EngineSettings s =
      engine_settings(recipe, base, adapter_layout_of(base, adapter.checkpoint.state().adapter), MeshShape{}, nullptr);
  s.train = false;
  s.products = Products::widened;  // what the files do is compared, not what products in fp8 round
  s.capacity.micro_batch = {documents.tokens(), documents.tokens()};
  s.capacity.local_micro_batches = 1;
  s.max_positions = documents.longest_document() + 1;
  return s;
}

// A replica to evaluate and to score with, planned: scratch and cache are for both.
ArenaBytes bytes_of(const EngineSettings& settings, const Device& device, const TokenStore& documents) {
  ArenaBytes bytes = plan_rank(settings, device.mesh.shape, device.mesh.position).bytes;
  const ScoringBytes scoring = scoring_bytes(settings, device.mesh, documents);
  bytes.scratch = std::max(bytes.scratch, scoring.pass);
  bytes.cache = scoring.cache;
  return bytes;
}

std::string why_no_memory(const ArenaBytes& bytes, Backend& backend) {
  const double needed = kMoreMemory * static_cast<double>(bytes.total() + backend.workspace_bytes());
  const int64_t available = available_machine_bytes();
  if (needed <= static_cast<double>(available)) return {};
  return fmt::format("the model needs about {:.0f} MiB, and this machine has {:.0f} MiB free", needed / (1 << 20),
                     mib(available));
}

void compare_adapter(const ExportedAdapter& adapter, const EngineSettings& settings, const Device& device,
                     ModelDirectory& base, const TokenStore& documents, Comparison& c, std::vector<float>& reference) {
  const ArenaBytes bytes = bytes_of(settings, device, documents);
  const std::unique_ptr<Replica> replica = open_replica(settings, device, BaseWeights(base), bytes);
  Engine engine(settings, *replica, bytes.saved);
  replica->load(adapter.checkpoint);
  reference = engine_logprobs(engine, documents);
  c.logprob = compared(reference, reference).logprob;
  c.sample = sample_json(documents, reference);
  load_adapter(adapter.directory, settings.model, *replica->adapter);
  c.reloaded = compared(engine_logprobs(engine, documents), reference);
  c.served =
      compared(served_logprobs(*replica, {replica->arenas.cache, replica->arenas.scratch}, documents), reference);
}

Compared compare_merged(const ExportedAdapter& adapter, EngineSettings settings, const Device& device,
                        ModelDirectory& base, const TokenStore& documents, const std::vector<float>& reference) {
  const AdapterFile file(adapter.directory);
  BaseWeights weights(base);
  settings.model = merged_model(file.config(), weights);
  settings.adapter = {};
  settings.weights = WeightsAs::as_is;  // a merged model is plain numbers
  settings.stored = {};
  const ArenaBytes bytes = bytes_of(settings, device, documents);
  const AdapterSource source{file.config(), [&](const std::string& name) { return file.read(name); }};
  MergedWeights merged(source, weights, *device.backend, weights_as(adapter.recipe.model.weights));
  Replica replica(settings, device, merged, bytes);
  return compared(served_logprobs(replica, {replica.arenas.cache, replica.arenas.scratch}, documents), reference);
}

}  // namespace

Comparison compare_export(const ExportedAdapter& adapter, ModelDirectory& base, int threads) {
  const Recipe& recipe = adapter.recipe;
  Comparison c{.step = adapter.checkpoint.state().step,
               .dtype = dtype_of(recipe.train.dtype),
               .adapter_dtype = dtype_of(recipe.output.adapter_dtype)};
  const auto without = [&](const std::string& why) {
    c.why["reloaded"] = c.why["served"] = c.why["merged"] = why;
    return c;
  };
  c.rows = rows_compared(recipe);
  TokenStore documents;
  try {
    documents = documents_of(adapter, base);
  } catch (const Error& error) {
    return without(error.what());
  }
  c.tokens = documents.trained_tokens(0, documents.documents());
  if (c.tokens == 0) return without(kNothingToCompare);
  const Device device{make_cpu_backend(threads), make_self_mesh()};
  EngineSettings settings = settings_of(adapter, base.config(), documents);
  settings.stored = [&](const ParamSpec& spec) { return base.scaling(spec.name); };
  c.base_weights = base_format(settings);
  fit_to(device, settings);
  const std::string why = why_no_memory(bytes_of(settings, device, documents), *device.backend);
  if (!why.empty()) {
    c.tokens = 0;
    return without(why);
  }
  std::vector<float> reference;
  compare_adapter(adapter, settings, device, base, documents, c, reference);
  c.merged = compare_merged(adapter, settings, device, base, documents, reference);
  return c;
}

}  // namespace drover
