#include "model/generation/decoder.h"

namespace drover {

namespace {

constexpr int kStream = 0;  // the tag of a pass on its way to the next stage

}  // namespace

Decoder::Decoder(const Stage& stage, const Mesh& mesh, Backend& backend, KvPool& pool, Arena& scratch)
    : stage_(stage), pp_(mesh.pp()), backend_(backend), pool_(pool), scratch_(scratch) {}

template <typename T>
Tensor Decoder::upload(Frame& frame, const std::vector<T>& host) {
  Tensor t = frame.tensor(static_cast<int64_t>(host.size()), 1, dtype_of<T>());
  backend_.upload(host.data(), t);
  return t;
}

Context Decoder::context(Tensor ids, Tensor positions, Tensor cache_rows, std::span<const Segment> segments) {
  return {.backend = backend_,
          .scratch = scratch_,
          .dtype = stage_.dtype(),
          .rope = stage_.rope(),
          .ids = ids,
          .positions = positions,
          .documents = {},
          .segments = segments,
          .dropout = {},
          .cache = &pool_.cache(),
          .cache_rows = cache_rows};
}

Tensor Decoder::pass(Frame& frame, std::span<const Input> inputs) {
  std::vector<int32_t> ids, positions, cache_rows;
  std::vector<Segment> segments;
  for (const Input& input : inputs) {
    CachedSequence& s = *input.sequence;
    const int64_t n = static_cast<int64_t>(input.ids.size()), block = KvPool::kBlockTokens;
    require(n > 0 && s.tokens + n <= static_cast<int64_t>(s.blocks.size()) * block,
            "a pass takes at least one token of a sequence, and as many as it has blocks for");
    segments.push_back({.q0 = static_cast<int64_t>(ids.size()),
                        .nq = n,
                        .nk = s.tokens + n,
                        .offset = s.tokens,
                        .block_table = s.blocks.data()});
    for (const int32_t id : input.ids) {
      ids.push_back(id);
      positions.push_back(static_cast<int32_t>(s.tokens));
      const int64_t row = s.blocks[static_cast<size_t>(s.tokens / block)] * block + s.tokens % block;
      cache_rows.push_back(static_cast<int32_t>(row));
      ++s.tokens;
    }
  }

  const int64_t rows = static_cast<int64_t>(ids.size());
  Context ctx = context(upload(frame, ids), upload(frame, positions), upload(frame, cache_rows), segments);
  const Placement& placement = stage_.placement();
  Tensor x = frame.tensor(rows, stage_.config().hidden, stage_.dtype());
  if (placement.first) {
    stage_.embed(ctx, x);
  } else {
    pp_.receive(x, pp_.rank() - 1, kStream)->wait();
  }
  run_alone(stage_.forward(ctx, x, {}));
  if (placement.last) return x;
  pp_.send(x, pp_.rank() + 1, kStream)->wait();
  return {};
}

Tensor Decoder::logits(Frame& frame, Tensor x, const std::vector<int32_t>& rows) {
  const Head& head = *stage_.head();
  Context ctx = context({}, {}, {}, {});
  Tensor logits = frame.tensor(static_cast<int64_t>(rows.size()), head.weight.rows * head.tp->size(), DType::f32);
  head.logits(ctx, x, upload(frame, rows), logits);
  return logits.columns(0, stage_.config().vocab);
}

void Decoder::choose(Frame& frame, Tensor logits, std::span<const Input* const> choosing, Tensor tokens) {
  std::vector<SamplingRow> rows;
  for (const Input* input : choosing) rows.push_back(row_of(*input->sampling, input->draw));
  const Tensor choices = frame.tensor(logits.rows, kSamplingColumns, DType::f32);
  backend_.upload(rows.data(), choices);
  backend_.sample(logits, choices, tokens);
}

std::vector<int32_t> Decoder::append(std::span<const Input> inputs) {
  Frame frame(scratch_);
  const Tensor x = pass(frame, inputs);
  std::vector<const Input*> choosing;
  std::vector<int32_t> last_rows;
  int32_t row = -1;
  for (const Input& input : inputs) {
    row += static_cast<int32_t>(input.ids.size());
    if (input.sampling == nullptr) continue;
    choosing.push_back(&input);
    last_rows.push_back(row);
  }
  if (choosing.empty()) return {};
  const Tensor tokens = frame.tensor(static_cast<int64_t>(choosing.size()), 1, DType::i32);
  if (stage_.head()) choose(frame, logits(frame, x, last_rows), choosing, tokens);
  pp_.broadcast(tokens, pp_.size() - 1);
  std::vector<int32_t> chosen(choosing.size());
  backend_.download(tokens, chosen.data());
  return chosen;
}

std::vector<std::vector<float>> Decoder::append_for_logits(std::span<const Input> inputs) {
  require(pp_.size() == 1, "logits are given where one stage has the whole model");
  Frame frame(scratch_);
  const Tensor x = pass(frame, inputs);
  std::vector<int32_t> last_rows;
  int32_t row = -1;
  for (const Input& input : inputs) last_rows.push_back(row += static_cast<int32_t>(input.ids.size()));
  const Tensor all = logits(frame, x, last_rows);
  std::vector<std::vector<float>> rows;
  for (int64_t i = 0; i < all.rows; ++i) {
    backend_.download(all.rows_from(i, 1), rows.emplace_back(static_cast<size_t>(all.cols)).data());
  }
  return rows;
}

void Decoder::rehearse(int64_t rows, int64_t chosen) {
  const Sampling drawn{.greedy = false};
  const std::vector<int32_t> ids(static_cast<size_t>(rows - chosen + 1));
  std::vector<CachedSequence> sequences(static_cast<size_t>(chosen));
  std::vector<Input> inputs;
  for (CachedSequence& s : sequences) {
    const auto taken = std::span(ids).first(inputs.empty() ? ids.size() : 1);
    s.blocks.resize(static_cast<size_t>(KvPool::blocks_for(static_cast<int64_t>(taken.size()))));
    inputs.push_back({.sequence = &s, .ids = taken, .sampling = &drawn});
  }
  append(inputs);
}

}  // namespace drover
