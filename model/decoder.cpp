#include "model/decoder.h"

namespace drover {

Decoder::Decoder(const Stage& stage, Backend& backend, Arena& cache, Arena& scratch, int64_t sequences, int64_t capacity_tokens)
    : stage_(stage), backend_(backend), scratch_(scratch), capacity_(capacity_tokens), lengths_(static_cast<size_t>(sequences)) {
  require(stage.placement().first && stage.placement().last, "a decoder runs a whole model");
  for (const Block& block : stage.blocks()) {
    const int64_t width = block.attention.kv_heads * block.attention.head_dim;
    cache_.layers.push_back({cache.tensor(sequences * capacity_tokens, width, stage.dtype()), cache.tensor(sequences * capacity_tokens, width, stage.dtype())});
  }
}

std::vector<std::vector<float>> Decoder::append(std::span<const Input> inputs) {
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

  Frame frame(scratch_);
  const auto upload = [&](const std::vector<int32_t>& host) {
    Tensor t = frame.tensor(static_cast<int64_t>(host.size()), 1, DType::i32);
    backend_.upload(host.data(), t);
    return t;
  };
  Step step{.backend = backend_, .scratch = scratch_, .dtype = stage_.dtype(), .rope = stage_.rope(), .ids = upload(ids), .positions = upload(positions),
            .documents = {}, .segments = segments, .dropout = {}, .cache = &cache_, .cache_rows = upload(cache_rows)};
  const int64_t tokens = static_cast<int64_t>(ids.size()), n = static_cast<int64_t>(inputs.size());
  Tensor x = frame.tensor(tokens, stage_.config().hidden, stage_.dtype());
  stage_.embed(step, x);
  for (const Block& block : stage_.blocks()) {
    Frame inner(scratch_);
    Block::Saved passing = block.saved(scratch_, tokens, stage_.dtype());
    block.forward(step, x, passing);
  }
  const Head& head = *stage_.head();
  Tensor logits = frame.tensor(n, head.weight.rows * head.tp->size(), DType::f32);
  head.logits(step, x, upload(last_rows), logits);
  std::vector<std::vector<float>> result;
  for (int64_t i = 0; i < n; ++i) {
    std::vector<float>& row = result.emplace_back(static_cast<size_t>(stage_.config().vocab));
    backend_.download(logits.rows_from(i, 1).columns(0, stage_.config().vocab), row.data());
  }
  return result;
}

}  // namespace drover
