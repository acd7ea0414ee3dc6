#include "model/files/gguf_tensors.h"

#include <array>

#include "kernels/base/error.h"

namespace drover {

namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kLinears = {{{"self_attn.q_proj", "attn_q"},
                                                                                    {"self_attn.k_proj", "attn_k"},
                                                                                    {"self_attn.v_proj", "attn_v"},
                                                                                    {"self_attn.o_proj", "attn_output"},
                                                                                    {"mlp.gate_proj", "ffn_gate"},
                                                                                    {"mlp.up_proj", "ffn_up"},
                                                                                    {"mlp.down_proj", "ffn_down"}}};

}  // namespace

std::vector<int64_t> GgufPlace::shape() const {
  if (cols == 1) return {rows};
  return {rows, cols};
}

std::string gguf_linear(const std::string& path) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!path.starts_with(kPrefix)) return "";
  const size_t dot = path.find('.', kPrefix.size());
  for (const auto& [ours, theirs] : kLinears) {
    if (dot != std::string::npos && path.substr(dot + 1) == ours)
      return fmt::format("blk.{}.{}", path.substr(kPrefix.size(), dot - kPrefix.size()), theirs);
  }
  return "";
}

std::map<std::string, GgufPlace> gguf_places(const ModelConfig& c) {
  std::map<std::string, GgufPlace> table = {{"model.embed_tokens.weight", {"token_embd.weight", c.vocab, c.hidden}},
                                            {"model.norm.weight", {"output_norm.weight", c.hidden}}};
  if (!c.tied_head) table["lm_head.weight"] = {"output.weight", c.vocab, c.hidden};
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i), block = fmt::format("blk.{}.", i);
    const auto linear = [&](const std::string& name, int64_t rows, int64_t cols, bool interleaved = false) {
      table[layer + name + ".weight"] = {gguf_linear(layer + name) + ".weight", rows, cols, interleaved};
    };
    table[layer + "input_layernorm.weight"] = {block + "attn_norm.weight", c.hidden};
    linear("self_attn.q_proj", q, c.hidden, true);
    linear("self_attn.k_proj", kv, c.hidden, true);
    linear("self_attn.v_proj", kv, c.hidden);
    linear("self_attn.o_proj", c.hidden, q);
    table[layer + "post_attention_layernorm.weight"] = {block + "ffn_norm.weight", c.hidden};
    linear("mlp.gate_proj", c.ffn, c.hidden);
    linear("mlp.up_proj", c.ffn, c.hidden);
    linear("mlp.down_proj", c.hidden, c.ffn);
  }
  return table;
}

int64_t row_in_gguf(int64_t row, int64_t head_dim) {
  const int64_t head = row / head_dim, within = row % head_dim, half = head_dim / 2;
  return head * head_dim + within % half * 2 + within / half;
}

int64_t row_from_gguf(int64_t row, int64_t head_dim) {
  const int64_t head = row / head_dim, within = row % head_dim, half = head_dim / 2;
  return head * head_dim + within % 2 * half + within / 2;
}

}  // namespace drover
