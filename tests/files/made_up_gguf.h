// A Llama of one layer as a GGUF file: 4 heads, 2 kv heads of 4, hidden 8, ffn 12, 10 tokens. q, k and v have their
// row's number in every column.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>

#include "tests/files/made_up_files.h"

namespace drover {

inline GgufText tiny_llama(const std::string& pre, const std::string& architecture = "llama", float theta = 10000,
                           uint32_t head_dim = 4) {
  GgufText t;
  t.string("general.architecture", architecture);
  t.u32("llama.block_count", 1);
  t.u32("llama.context_length", 64);
  t.u32("llama.embedding_length", 8);
  t.u32("llama.feed_forward_length", 12);
  t.u32("llama.attention.head_count", 4);
  t.u32("llama.attention.head_count_kv", 2);
  t.u32("llama.attention.key_length", head_dim);
  t.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  t.f32("llama.rope.freq_base", theta);
  t.u32("llama.rope.dimension_count", 4);
  t.string("tokenizer.ggml.model", "gpt2");
  t.string("tokenizer.ggml.pre", pre);
  t.strings("tokenizer.ggml.tokens", {"<|s0|>", "<|s1|>", "<|s2|>", "a", "b", "c", "ab", "abc", "d", "<think>"});
  t.ints("tokenizer.ggml.token_type", {3, 3, 3, 1, 1, 1, 1, 1, 1, 4});
  t.strings("tokenizer.ggml.merges", {"a b", "ab c"});
  t.u32("tokenizer.ggml.bos_token_id", 1);
  t.u32("tokenizer.ggml.eos_token_id", 2);
  t.string("tokenizer.chat_template", "{{ messages }}");
  const auto rows = [](int64_t rows, int64_t cols) {
    std::vector<float> values;
    for (int64_t r = 0; r < rows; ++r) values.insert(values.end(), static_cast<size_t>(cols), static_cast<float>(r));
    return values;
  };
  t.floats("token_embd.weight", {8, 10}, counted(80));
  t.floats("output_norm.weight", {8}, {1, 1.01f, 1, 1, 1, 1, 1, 1});
  t.floats("blk.0.attn_norm.weight", {8}, counted(8));
  t.floats("blk.0.ffn_norm.weight", {8}, counted(8));
  t.floats("blk.0.attn_q.weight", {8, 16}, rows(16, 8));
  t.floats("blk.0.attn_k.weight", {8, 8}, rows(8, 8));
  t.floats("blk.0.attn_v.weight", {8, 8}, rows(8, 8));
  t.floats("blk.0.attn_output.weight", {16, 8}, counted(128));
  t.floats("blk.0.ffn_gate.weight", {8, 12}, counted(96));
  t.floats("blk.0.ffn_up.weight", {8, 12}, counted(96));
  t.floats("blk.0.ffn_down.weight", {12, 8}, counted(96));
  return t;
}

}  // namespace drover
