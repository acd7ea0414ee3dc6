#include "trainer/export/verify_export.h"

#include "kernels/cpu/cpu_backend.h"
#include "trainer/export/relative_distance.h"
#include "trainer/generation/inference.h"
#include "trainer/run/process_memory.h"

namespace drover {

namespace {

constexpr int64_t kPromptTokens = 16;
constexpr double kMemoryForModel = 1.3;  // × its fp32 bytes

std::vector<float> logits_of(const fs::path& model, WeightsAs weights, const std::optional<fs::path>& adapter,
                             int64_t vocab, int threads) {
  Mesh mesh = make_self_mesh();
  const InferenceSettings settings{.model = model,
                                   .adapter = adapter,
                                   .dtype = DType::f32,
                                   .weights = weights,
                                   .batcher = {.sequences = 1},
                                   .capacity_tokens = kPromptTokens};
  Inference inference(settings, mesh, [threads](const Mesh& host) { return Device{make_cpu_backend(threads), host}; });
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < kPromptTokens; ++i) ids.push_back(static_cast<int32_t>((i + 1) * 7919 % vocab));
  CachedSequence sequence;
  inference.decoder().pool().reserve(sequence, kPromptTokens);
  const Decoder::Input prompt{.sequence = &sequence, .ids = ids};
  return inference.decoder().append_for_logits({&prompt, 1}).front();
}

}  // namespace

std::optional<MergedCheck> check_merged_logits(const fs::path& base, WeightsAs weights, const fs::path& adapter,
                                               const fs::path& merged, int threads) {
  const ModelConfig config = read_model_config(base);
  const double needed = kMemoryForModel * 4 * static_cast<double>(parameter_count(config));
  if (needed > static_cast<double>(available_machine_bytes())) return std::nullopt;
  const auto logits = [&](const fs::path& model, const std::optional<fs::path>& with) {
    return logits_of(model, model == merged ? WeightsAs::as_is : weights, with, config.vocab, threads);
  };
  const std::vector<float> adapted = logits(base, adapter), plain = logits(base, {});
  const size_t both = std::min(adapted.size(), plain.size());  // an adapter may have a longer vocabulary
  return MergedCheck{.difference = RelativeDistance(logits(merged, {}), adapted).value(),
                     .effect = RelativeDistance(std::span(plain).first(both), std::span(adapted).first(both)).value()};
}

}  // namespace drover
