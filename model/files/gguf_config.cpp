#include "model/files/gguf_config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "kernels/base/error.h"
#include "kernels/base/json.h"
#include "model/files/gguf_tensors.h"

namespace drover {

namespace {

// The shortest decimal of a float, as a double: 1e-05 and not 9.999999747378752e-06.
double shortest(double value) {
  if (!std::isfinite(value)) return value;
  char text[64];
  const auto end = std::to_chars(text, text + sizeof text, static_cast<float>(value)).ptr;
  double parsed = 0;
  std::from_chars(text, end, parsed);
  return parsed;
}

// What Llama 3's scaling divides the frequency of pair i by (i of E/2).
double llama3_divisor(const RopeScaling& s, double theta, int64_t i, int64_t head_dim) {
  const double wavelength = 2 * M_PI * std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
  const double positions = static_cast<double>(s.original_max_positions);
  if (wavelength < positions / s.high_freq_factor) return 1;
  if (wavelength > positions / s.low_freq_factor) return s.factor;
  const double smooth = (positions / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return 1 / ((1 - smooth) / s.factor + smooth);
}

// The scalings that a file without a word about it may have: Llama 3.1 and 3.3 scale by 8, 3.2 by 32.
std::vector<RopeScaling> usual_scalings() {
  std::vector<RopeScaling> scalings;
  for (const double factor : {8.0, 32.0, 16.0, 4.0, 2.0, 64.0}) scalings.push_back({.factor = factor});
  return scalings;
}

// Where the scaling is another one, the file has it in keys of Drover's: llama.cpp needs the divisors alone.
constexpr const char *kFactor = "drover.rope.factor", *kLow = "drover.rope.low_freq_factor",
                     *kHigh = "drover.rope.high_freq_factor", *kPositions = "drover.rope.original_context_length";

std::vector<RopeScaling> possible_scalings(const GgufFile& file) {
  if (!file.has(kFactor)) return usual_scalings();
  return {{shortest(file.number(kFactor)), shortest(file.number(kLow)), shortest(file.number(kHigh)),
           file.integer(kPositions)}};
}

// The scaling behind the divisors that the file lists.
std::optional<RopeScaling> rope_scaling(const GgufFile& file, const ModelConfig& config) {
  const GgufTensor* tensor = file.find(kGgufRopeFactors);
  if (tensor == nullptr) return std::nullopt;
  std::vector<float> divisors(static_cast<size_t>(tensor->size()));
  dequantise(*tensor, 0, tensor->size(), divisors.data());
  const auto fits = [&](const RopeScaling& scaling) {
    for (size_t i = 0; i < divisors.size(); ++i) {
      const double expected = llama3_divisor(scaling, config.rope_theta, static_cast<int64_t>(i), config.head_dim);
      if (!(std::abs(divisors[i] - expected) <= 1e-4 * expected)) return false;
    }
    return true;
  };
  if (static_cast<int64_t>(divisors.size()) == config.head_dim / 2) {
    if (std::all_of(divisors.begin(), divisors.end(), [](float d) { return d == 1.0f; })) return std::nullopt;
    for (const RopeScaling& scaling : possible_scalings(file)) {
      if (fits(scaling)) return scaling;
    }
  }
  fail(Fault::bad_data,
       "{}: {} is not Llama 3's rope scaling over 8192 positions by 2, 4, 8, 16, 32 or 64; other scalings are not "
       "supported",
       file.path().string(), kGgufRopeFactors);
}

}  // namespace

ModelConfig read_gguf_config(const GgufFile& file) {
  const std::string where = file.path().string();
  const std::string architecture = file.text("general.architecture");
  if (architecture != "llama")
    fail(Fault::bad_data, "{}: general.architecture is \"{}\"; allowed is llama", where, clipped(architecture));
  const std::string type = file.text("general.type", "model");
  if (type != "model") fail(Fault::bad_data, "{}: general.type is \"{}\"; allowed is model", where, clipped(type));
  if (file.integer("split.count", 1) > 1)
    fail(Fault::bad_data, "{}: split.count is {}; join the parts into one file first", where,
         file.integer("split.count"));
  if (file.integer("llama.expert_count", 0) > 0)
    fail(Fault::bad_data, "{}: llama.expert_count is not 0; mixtures of experts are not supported", where);
  const std::string scaling = file.text("llama.rope.scaling.type", "none");
  if (scaling != "none")
    fail(Fault::bad_data, "{}: llama.rope.scaling.type is \"{}\"; allowed is none", where, clipped(scaling));

  ModelConfig config;
  config.hidden = file.integer("llama.embedding_length");
  config.layers = file.integer("llama.block_count");
  config.heads = file.integer("llama.attention.head_count");
  config.kv_heads = file.integer("llama.attention.head_count_kv", config.heads);
  config.ffn = file.integer("llama.feed_forward_length");
  config.max_positions = file.integer("llama.context_length");
  config.vocab = static_cast<int64_t>(file.texts("tokenizer.ggml.tokens").size());
  config.norm_eps = shortest(file.number("llama.attention.layer_norm_rms_epsilon"));
  config.rope_theta = shortest(file.number("llama.rope.freq_base", 10000.0));
  if (!std::isfinite(config.norm_eps) || !std::isfinite(config.rope_theta)) {
    fail(Fault::bad_data,
         "{}: llama.attention.layer_norm_rms_epsilon is {} and llama.rope.freq_base {}; they must be finite", where,
         config.norm_eps, config.rope_theta);
  }
  if (config.heads < 1) fail(Fault::bad_data, "{}: llama.attention.head_count is {}", where, config.heads);
  config.head_dim = file.integer("llama.attention.key_length", config.hidden / config.heads);
  for (const char* key : {"llama.rope.dimension_count", "llama.attention.value_length"}) {
    const int64_t given = file.integer(key, config.head_dim);
    if (given != config.head_dim)
      fail(Fault::bad_data, "{}: {} is {}; allowed is the head's size, {}", where, key, given, config.head_dim);
  }
  config.tied_head = file.find("output.weight") == nullptr;
  config.bos =
      static_cast<int32_t>(std::clamp<int64_t>(file.integer("tokenizer.ggml.bos_token_id", -1), -1, config.vocab));
  std::set<int32_t> eos;
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (file.has(key)) eos.insert(static_cast<int32_t>(std::clamp<int64_t>(file.integer(key), -1, config.vocab)));
  }
  config.eos.assign(eos.begin(), eos.end());
  config = parse_model_config(write_model_config(config), where);  // sizes and ids in range
  config.rope_scaling = rope_scaling(file, config);
  return parse_model_config(write_model_config(config), where);
}

void write_gguf_config(GgufWriter& writer, const ModelConfig& config) {
  const auto count = [&](const char* key, int64_t value) { writer.integer(key, value); };
  writer.text("general.architecture", "llama");
  count("llama.block_count", config.layers);
  count("llama.context_length", config.max_positions);
  count("llama.embedding_length", config.hidden);
  count("llama.feed_forward_length", config.ffn);
  count("llama.attention.head_count", config.heads);
  count("llama.attention.head_count_kv", config.kv_heads);
  count("llama.attention.key_length", config.head_dim);
  count("llama.attention.value_length", config.head_dim);
  count("llama.rope.dimension_count", config.head_dim);
  count("llama.vocab_size", config.vocab);
  writer.number("llama.attention.layer_norm_rms_epsilon", static_cast<float>(config.norm_eps));
  writer.number("llama.rope.freq_base", static_cast<float>(config.rope_theta));
  if (!config.rope_scaling) return;
  const RopeScaling& scaling = *config.rope_scaling;
  const std::vector<RopeScaling> usual = usual_scalings();
  if (std::ranges::find(usual, scaling) != usual.end()) return;
  writer.number(kFactor, static_cast<float>(scaling.factor));
  writer.number(kLow, static_cast<float>(scaling.low_freq_factor));
  writer.number(kHigh, static_cast<float>(scaling.high_freq_factor));
  writer.integer(kPositions, scaling.original_max_positions);
}

std::vector<float> rope_divisors(const ModelConfig& config) {
  std::vector<float> divisors;
  for (int64_t i = 0; i < config.head_dim / 2; ++i) {
    divisors.push_back(
        static_cast<float>(llama3_divisor(config.rope_scaling.value(), config.rope_theta, i, config.head_dim)));
  }
  return divisors;
}

}  // namespace drover
