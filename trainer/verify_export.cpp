#include "trainer/verify_export.h"

#include <cmath>

#include "kernels/cpu/cpu_backend.h"
#include "trainer/inference.h"
#include "trainer/process_memory.h"

namespace drover {

namespace {

constexpr int64_t kPromptTokens = 16;
constexpr double kMemoryForModel = 1.3;  // × its fp32 bytes

std::vector<float> logits_of(const fs::path& model, const std::optional<fs::path>& adapter, int64_t vocab, int threads) {
  Mesh mesh = make_self_mesh();
  const InferenceSettings settings{.model = model,
                                   .adapter = adapter,
                                   .dtype = DType::f32,
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

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    size += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(difference / size);
}

}  // namespace

std::optional<MergedCheck> check_merged_logits(const fs::path& base, const fs::path& adapter, const fs::path& merged, int threads) {
  const ModelConfig config = read_model_config(base);
  if (kMemoryForModel * 4 * static_cast<double>(parameter_count(config)) > static_cast<double>(available_machine_bytes())) return std::nullopt;
  const std::vector<float> adapted = logits_of(base, adapter, config.vocab, threads);
  return MergedCheck{distance(logits_of(merged, {}, config.vocab, threads), adapted), distance(logits_of(base, {}, config.vocab, threads), adapted)};
}

}  // namespace drover
