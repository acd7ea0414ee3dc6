// Where a Llama's tensors stand in a GGUF file: other names, and the rows of q and k in another order, as llama.cpp's
// rotary positions turn neighbours where Hugging Face's turn the two halves of a head.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "model/config.h"

namespace drover {

inline constexpr const char* kGgufRopeFactors = "rope_freqs.weight";

struct GgufPlace {
  std::string name;  // in the GGUF file
  int64_t rows = 0, cols = 1;
  bool interleaved = false;  // rows 0, E/2, 1, E/2 + 1, … of each head
  std::vector<int64_t> shape() const;
};

// By Hugging Face's name; no lm_head.weight where the head is tied.
std::map<std::string, GgufPlace> gguf_places(const ModelConfig& config);

// "model.layers.7.self_attn.q_proj" → "blk.7.attn_q"; nothing where no linear of a block has that path.
std::string gguf_linear(const std::string& path);

// The row of an interleaved tensor that is Hugging Face's `row`, and the other way about.
int64_t row_in_gguf(int64_t row, int64_t head_dim);
int64_t row_from_gguf(int64_t row, int64_t head_dim);

}  // namespace drover
