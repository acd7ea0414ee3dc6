#include "model/files/import_gguf.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "kernels/base/hash.h"
#include "kernels/base/json.h"
#include "kernels/base/log.h"
#include "model/config.h"
#include "model/files/gguf.h"
#include "model/files/gguf_tokenizer.h"
#include "model/files/gguf_types.h"
#include "model/files/safetensors.h"
#include "model/files/safetensors_writer.h"
#include "model/files/staged_directory.h"

namespace drover {

namespace {

constexpr const char* kRecord = "drover_import.json";
constexpr const char* kRopeFactors = "rope_freqs.weight";

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

// The scaling behind the divisors that the file lists; Llama 3.1 and 3.3 scale by 8, 3.2 by 32.
std::optional<RopeScaling> rope_scaling(const GgufFile& file, const ModelConfig& config) {
  const GgufTensor* tensor = file.find(kRopeFactors);
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
    for (const double factor : {8.0, 32.0, 16.0, 4.0, 2.0, 64.0}) {
      const RopeScaling scaling{.factor = factor};
      if (fits(scaling)) return scaling;
    }
  }
  fail(Fault::bad_data,
       "{}: {} is not Llama 3's rope scaling over 8192 positions by 2, 4, 8, 16, 32 or 64; other scalings are not "
       "supported",
       file.path().string(), kRopeFactors);
}

ModelConfig model_config(const GgufFile& file) {
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
  return config;
}

enum class Rows { plain, interleaved };

struct Source {
  std::string name;  // in the GGUF file
  int64_t rows = 0, cols = 1;
  Rows order = Rows::plain;
};

std::map<std::string, Source> sources(const ModelConfig& c) {
  std::map<std::string, Source> table = {{"model.embed_tokens.weight", {"token_embd.weight", c.vocab, c.hidden}},
                                         {"model.norm.weight", {"output_norm.weight", c.hidden}}};
  if (!c.tied_head) table["lm_head.weight"] = {"output.weight", c.vocab, c.hidden};
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string to = fmt::format("model.layers.{}.", i), from = fmt::format("blk.{}.", i);
    table[to + "input_layernorm.weight"] = {from + "attn_norm.weight", c.hidden};
    table[to + "self_attn.q_proj.weight"] = {from + "attn_q.weight", q, c.hidden, Rows::interleaved};
    table[to + "self_attn.k_proj.weight"] = {from + "attn_k.weight", kv, c.hidden, Rows::interleaved};
    table[to + "self_attn.v_proj.weight"] = {from + "attn_v.weight", kv, c.hidden};
    table[to + "self_attn.o_proj.weight"] = {from + "attn_output.weight", c.hidden, q};
    table[to + "post_attention_layernorm.weight"] = {from + "ffn_norm.weight", c.hidden};
    table[to + "mlp.gate_proj.weight"] = {from + "ffn_gate.weight", c.ffn, c.hidden};
    table[to + "mlp.up_proj.weight"] = {from + "ffn_up.weight", c.ffn, c.hidden};
    table[to + "mlp.down_proj.weight"] = {from + "ffn_down.weight", c.hidden, c.ffn};
  }
  return table;
}

std::vector<int64_t> shape_of(const Source& source) {
  if (source.cols == 1) return {source.rows};
  return {source.rows, source.cols};
}

// Every tensor has its place and shape; a tensor without a place (a bias, an expert) would change the arithmetic.
void check_tensors(const GgufFile& file, const std::map<std::string, Source>& table) {
  const std::string where = file.path().string();
  std::set<std::string> known = {kRopeFactors};
  for (const auto& [name, source] : table) {
    known.insert(source.name);
    const GgufTensor* tensor = file.find(source.name);
    if (tensor == nullptr) fail(Fault::bad_data, "{}: the tensor {} is missing", where, source.name);
    if (tensor->shape != shape_of(source)) {
      fail(Fault::bad_data, "{}: {} is {} where the keys llama.* give {}", where, source.name,
           shape_text(tensor->shape), shape_text(shape_of(source)));
    }
  }
  for (const GgufTensor& tensor : file.tensors()) {
    if (known.count(tensor.name) == 0)
      fail(Fault::bad_data, "{}: the tensor {} has no place in a Llama model", where, clipped(tensor.name));
  }
}

// llama.cpp lays the two halves of a head's rows out in turn (0, E/2, 1, E/2 + 1, …). The row of the GGUF file that is
// row `row` here.
int64_t interleaved_row(int64_t row, int64_t head_dim) {
  const int64_t head = row / head_dim, within = row % head_dim, half = head_dim / 2;
  return head * head_dim + within % half * 2 + within / half;
}

bool is_exact_in_bf16(const GgufTensor& tensor) {
  std::vector<float> row(static_cast<size_t>(tensor.row_size()));
  for (int64_t at = 0; at < tensor.size(); at += tensor.row_size()) {
    dequantise(tensor, at, tensor.row_size(), row.data());
    for (const float v : row) {
      if (static_cast<float>(bf16(v)) != v) return false;
    }
  }
  return true;
}

// What holds a tensor's numbers: fp16 stays, fp32 does where bf16 would round it. Quantised ones are rounded to bf16.
StoredType stored_type_of(const GgufTensor& tensor) {
  if (tensor.type == GgufType::f16) return StoredType::f16;
  return tensor.type == GgufType::f32 && !is_exact_in_bf16(tensor) ? StoredType::f32 : StoredType::bf16;
}

void append(std::vector<char>& bytes, StoredType type, float value) {
  const auto add = [&](const auto& number) {
    const char* from = reinterpret_cast<const char*>(&number);
    bytes.insert(bytes.end(), from, from + sizeof number);
  };
  if (type == StoredType::f32) return add(value);
  add(type == StoredType::f16 ? half_of_float(value) : bf16(value).bits);
}

std::vector<TensorSpec> specs_of(const GgufFile& file, const std::map<std::string, Source>& table) {
  std::vector<TensorSpec> specs;
  size_t quantised = 0;
  for (const auto& [name, source] : table) {
    const GgufTensor& tensor = *file.find(source.name);
    specs.push_back({name, stored_type_of(tensor), shape_of(source)});
    quantised += is_quantised(tensor.type) ? 1 : 0;
  }
  if (quantised > 0)
    log::info("{} of {} tensors are quantised; their weights are written in bf16, rounded once", quantised,
              specs.size());
  return specs;
}

void write_weights(const GgufFile& file, const std::map<std::string, Source>& table, int64_t head_dim,
                   const std::vector<TensorSpec>& specs, const fs::path& path) {
  SafetensorsWriter writer(path, specs);
  for (const TensorSpec& spec : writer.order()) {
    const Source& source = table.at(spec.name);
    const GgufTensor& tensor = *file.find(source.name);
    const int64_t row_size = tensor.row_size(), rows = tensor.size() / row_size;
    const int64_t at_once =
        source.order == Rows::plain ? std::clamp<int64_t>((int64_t{1} << 20) / row_size, 1, rows) : 1;
    std::vector<float> values(static_cast<size_t>(at_once * row_size));
    std::vector<char> bytes;
    for (int64_t row = 0; row < rows; row += at_once) {
      const int64_t count = std::min(at_once, rows - row) * row_size;
      const int64_t from = source.order == Rows::plain ? row : interleaved_row(row, head_dim);
      dequantise(tensor, from * row_size, count, values.data());
      bytes.clear();
      for (int64_t i = 0; i < count; ++i) append(bytes, spec.dtype, values[static_cast<size_t>(i)]);
      writer.write(spec.name, bytes.data(), static_cast<int64_t>(bytes.size()));
    }
    file.advise_done(tensor);
  }
  writer.commit();
}

const std::set<std::string>& written_files() {
  static const std::set<std::string> names = {"config.json",    "generation_config.json", "model.safetensors",
                                              "tokenizer.json", "tokenizer_config.json",  kRecord};
  return names;
}

// Whether the directory holds a whole import of the file with this hash.
bool imported_before(const fs::path& directory, const std::string& sha256) {
  std::error_code ignored;
  for (const std::string& name : written_files()) {
    if (!fs::exists(directory / name, ignored)) return false;
  }
  static_cast<void>(SafetensorsFile(directory / "model.safetensors"));  // bad_data when it was damaged since
  const Json record = parse_json(read_text(directory / kRecord, 1 << 20), (directory / kRecord).string());
  return record.is_object() && record.value("sha256", Json()) == sha256;
}

}  // namespace

bool import_gguf(const fs::path& file, const fs::path& directory) {
  const GgufFile gguf(file);
  const std::string sha256 = sha256_file(file);
  if (imported_before(directory, sha256)) {
    log::info("{} already holds the import of {}", directory.string(), file.string());
    return false;
  }
  StagedDirectory staged(directory);
  ModelConfig config = model_config(gguf);
  const auto table = sources(config);
  check_tensors(gguf, table);
  const std::vector<TensorSpec> specs = specs_of(gguf, table);
  const auto is_half = [](const TensorSpec& spec) { return spec.dtype == StoredType::f16; };
  if (std::any_of(specs.begin(), specs.end(), is_half)) config.storage_dtype = "float16";
  const TokenizerFiles tokenizer = gguf_tokenizer(gguf, config);
  write_text(staged.path() / "config.json", write_model_config(config));
  write_text(staged.path() / "tokenizer.json", tokenizer.tokenizer);
  write_text(staged.path() / "tokenizer_config.json", tokenizer.tokenizer_config);
  write_text(staged.path() / "generation_config.json", tokenizer.generation_config);
  write_weights(gguf, table, config.head_dim, specs, staged.path() / "model.safetensors");
  const OrderedJson record = {{"source", file.filename().string()},
                              {"sha256", sha256},
                              {"name", gguf.text("general.name", "")},
                              {"license", gguf.text("general.license", "")}};
  write_text(staged.path() / kRecord, record.dump(2) + "\n");
  staged.commit();
  return true;
}

}  // namespace drover
