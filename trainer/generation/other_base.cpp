#include "trainer/generation/other_base.h"

#include <map>

#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "trainer/export/comparison.h"
#include "trainer/export/logprob_sample.h"
#include "trainer/generation/inference.h"
#include "trainer/setup/base_format.h"
#include "trainer/setup/engine_settings.h"

namespace drover {

namespace {

constexpr int64_t kPassRows = 256;

// ln p of the trained tokens, in the sample's order.
std::vector<float> scored(Batcher& batcher, const LogprobSample& sample) {
  std::vector<std::vector<float>> all(sample.documents.size());  // from the second token of each on
  std::map<uint64_t, size_t> document_of;
  for (size_t i = 0; i < sample.documents.size(); ++i)
    document_of[batcher.submit({.ids = sample.documents[i].ids, .max_tokens = 0, .prompt_logprobs = 0})] = i;
  while (!batcher.idle()) {
    for (const Event& event : batcher.step()) {
      if (const auto* error = std::get_if<Error>(&event.what)) throw *error;
      const auto* tokens = std::get_if<Scored>(&event.what);
      if (tokens == nullptr) continue;
      for (const Chosen& token : tokens->tokens) all[document_of.at(event.request)].push_back(token.logprob);
    }
  }
  std::vector<float> logprobs;
  for (size_t i = 0; i < all.size(); ++i) {
    for (const int64_t t : sample.documents[i].trained) logprobs.push_back(all[i].at(static_cast<size_t>(t - 1)));
  }
  return logprobs;
}

Compared measured(const fs::path& adapter, const LogprobSample& sample, const Recipe& recipe, const Mesh& mesh,
                  const OpenDevice& open_device) {
  const InferenceSettings settings{.model = recipe.model.path,
                                   .adapter = adapter,
                                   .dtype = dtype_of(recipe.train.dtype),
                                   .weights = weights_as(recipe.model.weights),
                                   .batcher = {.sequences = 1, .pass_rows = kPassRows, .prompt_logprobs = 0},
                                   .capacity_tokens = static_cast<int64_t>(sample.longest()) + 1};
  Inference inference(settings, mesh, open_device);
  std::vector<float> logprobs;
  together(*mesh.world, [&] { logprobs = scored(inference.batcher(), sample); });
  return compared(logprobs, sample.logprobs);
}

// What is said after the two formats.
std::string difference(const fs::path& adapter, const Recipe& recipe, const Mesh& mesh, const OpenDevice& open_device) {
  try {
    std::optional<LogprobSample> sample;
    together(*mesh.world, [&] { sample = read_sample(adapter); });
    if (!sample || sample->logprobs.empty())
      return fmt::format("no sample of log-probabilities is kept with it ({}) to say by how much", kSampleFile);
    const Compared c = measured(adapter, *sample, recipe, mesh, open_device);
    double before = 0;
    for (const float value : sample->logprobs) before += value;
    before /= static_cast<double>(sample->logprobs.size());
    return fmt::format(
        "over {} tokens that are kept with it ln p is {:.3f} in the mean, where it was {:.3f}; off by {:.1e} as ‖Δ‖ / "
        "‖ln p‖, of a token by up to {:.2g}",
        sample->logprobs.size(), c.logprob, before, c.distance, c.largest);
  } catch (const Error& error) {
    if (error.fault() == Fault::rank_hangs || error.fault() == Fault::rank_lost) throw;
    return fmt::format("by how much was not measured: {}", error.what());
  }
}

}  // namespace

void warn_of_other_base(std::span<const fs::path> adapters, const Recipe& recipe, const Mesh& mesh,
                        const OpenDevice& open_device) {
  for (const fs::path& adapter : adapters) {
    std::optional<OtherBase> other;
    together(*mesh.world, [&] { other = other_base(adapter, recipe); });
    if (!other) continue;
    log::warn("{}: its answers may differ; {}. model.weights chooses the format", said_of(adapter, *other),
              difference(adapter, recipe, mesh, open_device));
  }
}

}  // namespace drover
