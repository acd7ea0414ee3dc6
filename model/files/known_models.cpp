// Shapes known by name. Sources: the models' published config.json files.
#include "model/config.h"
#include "model/files/known_scaling.h"

namespace drover {

namespace {

constexpr const char* kMetaFp8 = "llama3.1-405b-fp8";

struct KnownModel {
  const char* name;
  ModelConfig config;
};

ModelConfig llama3(int64_t hidden, int64_t layers, int64_t heads, int64_t head_dim, int64_t ffn, double factor,
                   bool tied) {
  return {.hidden = hidden,
          .layers = layers,
          .heads = heads,
          .kv_heads = 8,
          .head_dim = head_dim,
          .ffn = ffn,
          .vocab = 128256,
          .max_positions = 131072,
          .norm_eps = 1e-5,
          .rope_theta = 500000,
          .rope_scaling = RopeScaling{.factor = factor},
          .tied_head = tied,
          .bos = 128000,
          .eos = {128001, 128008, 128009}};
}

const std::vector<KnownModel>& known_models() {
  static const std::vector<KnownModel> models = {
      {"llama3.1-8b", llama3(4096, 32, 32, 128, 14336, 8, false)},
      {"llama3.1-70b", llama3(8192, 80, 64, 128, 28672, 8, false)},
      {"llama3.1-405b", llama3(16384, 126, 128, 128, 53248, 8, false)},
      {kMetaFp8, llama3(16384, 126, 128, 128, 53248, 8, false)},
      {"llama3.2-1b", llama3(2048, 16, 32, 64, 8192, 32, true)},
      {"llama3.2-3b", llama3(3072, 28, 24, 128, 8192, 32, true)},
      {"smollm2-135m",
       {.hidden = 576,
        .layers = 30,
        .heads = 9,
        .kv_heads = 3,
        .head_dim = 64,
        .ffn = 1536,
        .vocab = 49152,
        .max_positions = 8192,
        .norm_eps = 1e-5,
        .rope_theta = 100000,
        .tied_head = true,
        .bos = 1,
        .eos = {2}}},
  };
  return models;
}

}  // namespace

int64_t parameter_count(const ModelConfig& c) {
  const int64_t attention = c.hidden * c.head_dim * (2 * c.heads + 2 * c.kv_heads);
  const int64_t block = attention + 3 * c.hidden * c.ffn + 2 * c.hidden;
  return c.layers * block + (c.tied_head ? 1 : 2) * c.vocab * c.hidden + c.hidden;
}

std::optional<ModelConfig> known_model(const std::string& name) {
  for (const KnownModel& model : known_models()) {
    if (name == model.name) return model.config;
  }
  return std::nullopt;
}

// Meta's own release of 405B in fp8 has the feed-forward linears of all layers but the first and the last in it, with a
// scale a row. Source: the released config.json's modules_to_not_convert and activation_scale_ub; Llama Team 2024, "The
// Llama 3 herd of models", section 6.2.
std::optional<StoredScaling> known_scaling(const std::string& name, int64_t layer, const std::string& tensor) {
  const std::optional<ModelConfig> model = known_model(name);
  if (name != kMetaFp8 || layer < 1 || layer > model->layers - 2 || tensor.find(".mlp.") == std::string::npos)
    return {};
  return StoredScaling{.kind = StoredScaling::Kind::fp8, .blocks = {1, 0}, .largest_input = 1200};
}

std::vector<std::string> known_model_names() {
  std::vector<std::string> names;
  for (const KnownModel& model : known_models()) names.push_back(model.name);
  return names;
}

}  // namespace drover
