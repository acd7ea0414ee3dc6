// What one pass of serving takes on a machine, from its rates: every part takes the longer of its arithmetic and of
// what it reads, one after another, and tensor-parallel sums come on top:
//   linears    max(2·N·rows / rate,  bytes of the weights / bandwidth)          N: the weights of all blocks' linears
//   head       the same of V·D for rows that choose a token
//   attention  max(4·L·H·E·looked / rate,  KV bytes·looked / bandwidth)         of rows of answers;  prompts: the first
//   sums       2·L·(latency + 2·(tp-1)/tp · rows·D·2 / bus bandwidth)
// each divided by tp. Weights are multiplied in bf16 whatever they are held in, as Drover serves them. Norms,
// rotations, sampling and starting kernels are not counted. Source: Williams et al. 2009 (roofline).
#pragma once
#include <functional>

#include "configs/choices.h"
#include "launch/planning/hardware.h"
#include "model/config.h"

namespace drover {

// The rows of a pass: tokens of prompts, and the last token of every answer that is under way. A row looks at the
// tokens before it and at itself.
struct PassShape {
  int64_t prompt_tokens = 0;
  int64_t prompt_context = 0;  // what these look at, summed over them
  int64_t decode_rows = 0;
  int64_t context_tokens = 0;  // what these look at, summed over them
};
using PassSeconds = std::function<double(const PassShape&)>;

// A model on `tp` GPUs of one kind.
struct ModelOnGpus {
  ModelConfig config;
  WeightFormat weights = WeightFormat::bf16;  // of the blocks' linears; embedding and head are bf16. Not as_is
  int64_t tp = 1;
  Machine machine;
};

// Of one GPU. usage where tp does not divide the heads or the ffn or spans nodes, or where the weights do not fit.
struct ServedBytes {
  double weights = 0, kv_of_a_token = 0;
  int64_t room_tokens = 0;  // for keys and values, in kMemoryShare of the memory next to the weights
};
inline constexpr double kMemoryShare = 0.9;  // the rest: a GPU's libraries, scratch, and blocks that are not full
ServedBytes bytes_of(const ModelOnGpus& model);

PassSeconds roofline(const ModelOnGpus& model);

}  // namespace drover
