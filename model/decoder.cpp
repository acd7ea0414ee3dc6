#include "model/decoder.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/error.h"

namespace drover {

Decoder::Decoder(const Stage& stage, Backend& backend, Arena& cache, Arena& scratch, int64_t sequences, int64_t capacity_tokens)
    : stage_(stage), backend_(backend), scratch_(scratch), capacity_(capacity_tokens), lengths_(static_cast<size_t>(sequences)) {
  require(stage.placement().first && stage.placement().last, "a decoder runs a whole model");
  for (const Block& block : stage.blocks()) {
    const int64_t width = block.attention.kv_heads * block.attention.head_dim;
    cache_.layers.push_back({cache.tensor(sequences * capacity_tokens, width, stage.dtype()), cache.tensor(sequences * capacity_tokens, width, stage.dtype())});
  }
}

template <typename T>
Tensor Decoder::upload(Frame& frame, const std::vector<T>& host) {
  Tensor t = frame.tensor(static_cast<int64_t>(host.size()), 1, dtype_of<T>());
  backend_.upload(host.data(), t);
  return t;
}

Tensor Decoder::logits_of(Frame& frame, std::span<const Input> inputs) {
  std::vector<int32_t> ids, positions, cache_rows, last_rows;
  std::vector<Segment> segments;
  for (const Input& input : inputs) {
    int64_t& length = lengths_[static_cast<size_t>(input.sequence)];
    const int64_t n = static_cast<int64_t>(input.ids.size());
    require(n > 0 && length + n <= capacity_, "a decoder is fed between one token and what its cache holds");
    segments.push_back({.q0 = static_cast<int64_t>(ids.size()), .nq = n, .k0 = input.sequence * capacity_, .nk = length + n, .offset = length});
    for (int32_t id : input.ids) {
      ids.push_back(id);
      positions.push_back(static_cast<int32_t>(length));
      cache_rows.push_back(static_cast<int32_t>(input.sequence * capacity_ + length));
      ++length;
    }
    last_rows.push_back(static_cast<int32_t>(ids.size()) - 1);
  }

  Context ctx{.backend = backend_,
              .scratch = scratch_,
              .dtype = stage_.dtype(),
              .rope = stage_.rope(),
              .ids = upload(frame, ids),
              .positions = upload(frame, positions),
              .documents = {},
              .segments = segments,
              .dropout = {},
              .cache = &cache_,
              .cache_rows = upload(frame, cache_rows)};
  const int64_t tokens = static_cast<int64_t>(ids.size());
  Tensor x = frame.tensor(tokens, stage_.config().hidden, stage_.dtype());
  stage_.embed(ctx, x);
  run_alone(stage_.forward(ctx, x, {}));
  const Head& head = *stage_.head();
  Tensor logits = frame.tensor(static_cast<int64_t>(inputs.size()), head.weight.rows * head.tp->size(), DType::f32);
  head.logits(ctx, x, upload(frame, last_rows), logits);
  return logits.columns(0, stage_.config().vocab);
}

std::vector<std::vector<float>> Decoder::append(std::span<const Input> inputs) {
  Frame frame(scratch_);
  const Tensor logits = logits_of(frame, inputs);
  std::vector<std::vector<float>> rows;
  for (int64_t i = 0; i < logits.rows; ++i) backend_.download(logits.rows_from(i, 1), rows.emplace_back(static_cast<size_t>(logits.cols)).data());
  return rows;
}

std::vector<int32_t> Decoder::append_and_choose(std::span<const Input> inputs, const Sampling& sampling, std::span<const Draw> draws) {
  require(draws.size() == inputs.size(), "a draw for each input");
  Frame frame(scratch_);
  const Tensor logits = logits_of(frame, inputs);
  std::vector<float> uniform;
  for (const Draw& draw : draws) uniform.push_back(uniform_of(sampling, draw));
  const Tensor tokens = frame.tensor(logits.rows, 1, DType::i32);
  backend_.sample(logits, sampling.temperature, sampling.top_p, sampling.greedy ? Tensor{} : upload(frame, uniform), tokens);
  std::vector<int32_t> ids(inputs.size());
  backend_.download(tokens, ids.data());
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0) continue;
    std::vector<float> row(static_cast<size_t>(logits.cols));
    backend_.download(logits.rows_from(static_cast<int64_t>(i), 1), row.data());
    fail(Exit::non_finite, "the model's logits are not finite ({}): its weights or the adapter's hold such values, or overflow bf16 (try train.dtype=fp32)",
         *std::find_if(row.begin(), row.end(), [](float v) { return !std::isfinite(v); }));
  }
  return ids;
}

}  // namespace drover
