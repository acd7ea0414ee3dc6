#include "model/generation/decoder.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace drover {

namespace {

constexpr int kStream = 0;  // the tag of a pass on its way to the next stage

class AnyToken : public TokenFilter {
 public:
  void allow(std::span<uint32_t> bits) override { std::ranges::fill(bits, ~uint32_t{0}); }
  bool accept(int32_t) override { return true; }
};

}  // namespace

Decoder::Decoder(const Stage& stage, const Mesh& mesh, Backend& backend, KvPool& pool, Arena& scratch)
    : stage_(stage),
      pp_(mesh.pp()),
      backend_(backend),
      replays_(mesh.tp().size() * mesh.pp().size() == 1 ? dynamic_cast<PassReplays*>(&backend) : nullptr),
      pool_(pool),
      scratch_(scratch) {}

template <typename T>
Tensor Decoder::upload(Frame& frame, const std::vector<T>& host) {
  Tensor t = frame.tensor(static_cast<int64_t>(host.size()), 1, dtype_of<T>());
  backend_.upload(host.data(), t);
  return t;
}

Context Decoder::context(Tensor ids, Tensor positions, Tensor cache_rows, std::span<const Segment> segments,
                         std::span<const AdapterRows> adapters) {
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
          .cache_rows = cache_rows,
          .order = SumOrder::by_row,
          .adapters = adapters};
}

Decoder::Rows Decoder::take(std::span<const Input> inputs) {
  Rows rows;
  for (const Input& input : inputs) {
    CachedSequence& s = *input.sequence;
    const int64_t n = static_cast<int64_t>(input.ids.size()), block = KvPool::kBlockTokens;
    require(n > 0 && s.tokens + n <= static_cast<int64_t>(s.blocks.size()) * block,
            "a pass takes at least one token of a sequence, and as many as it has blocks for");
    rows.segments.push_back({.q0 = static_cast<int64_t>(rows.ids.size()),
                             .nq = n,
                             .nk = s.tokens + n,
                             .offset = s.tokens,
                             .block_table = s.blocks.data()});
    rows.adapters.push_back({n, input.slot});
    for (const int32_t id : input.ids) {
      rows.ids.push_back(id);
      rows.positions.push_back(static_cast<int32_t>(s.tokens));
      const int64_t row = s.blocks[static_cast<size_t>(s.tokens / block)] * block + s.tokens % block;
      rows.cache_rows.push_back(static_cast<int32_t>(row));
      ++s.tokens;
    }
  }
  return rows;
}

Tensor Decoder::pass(Frame& frame, std::span<const Input> inputs) {
  const Rows taken = take(inputs);
  const int64_t rows = static_cast<int64_t>(taken.ids.size());
  Context ctx = context(upload(frame, taken.ids), upload(frame, taken.positions), upload(frame, taken.cache_rows),
                        taken.segments, taken.adapters);
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

Tensor Decoder::logits(Frame& frame, Tensor x, Tensor rows, std::span<const AdapterRows> adapters) {
  const Head& head = *stage_.head();
  Context ctx = context({}, {}, {}, {}, adapters);
  const int64_t columns = head.linear.out_features() * head.tp->size();
  Tensor logits = frame.tensor(rows.rows, columns, DType::f32);
  head.logits(ctx, x, rows, logits);
  return logits.columns(0, stage_.config().vocab);
}

void Decoder::penalize(Frame& frame, Tensor logits, std::span<const Input* const> choosing) {
  std::vector<int32_t> places;  // {row, token}
  std::vector<float> changes;   // {bias, repetition, subtracted}
  for (size_t row = 0; row < choosing.size(); ++row) {
    const Input& input = *choosing[row];
    for (const auto& [token, change] : changes_of(*input.sampling, input.prompt, input.answer)) {
      places.insert(places.end(), {static_cast<int32_t>(row), token});
      changes.insert(changes.end(), {change.bias, change.repetition, change.subtracted});
    }
  }
  const int64_t count = static_cast<int64_t>(places.size()) / 2;
  if (count == 0) return;
  const Tensor where = frame.tensor(count, 2, DType::i32), how = frame.tensor(count, 3, DType::f32);
  backend_.upload(places.data(), where);
  backend_.upload(changes.data(), how);
  backend_.penalize(logits, where, how);
}

// The host finds out what may come while the device is still at the rows' logits.
void Decoder::allow(Frame& frame, Tensor logits, std::span<const Input* const> choosing) {
  const size_t words = static_cast<size_t>(bit_words(logits.cols));
  std::vector<int32_t> rows;
  std::vector<uint32_t> bits;
  for (size_t row = 0; row < choosing.size(); ++row) {
    TokenFilter* filter = choosing[row]->filter;
    if (filter == nullptr) continue;
    rows.push_back(static_cast<int32_t>(row));
    bits.resize(bits.size() + words);
    filter->allow(std::span(bits).last(words));
  }
  const Tensor may_come = frame.tensor(static_cast<int64_t>(rows.size()), bit_words(logits.cols), DType::i32);
  backend_.upload(bits.data(), may_come);
  backend_.allow(logits, upload(frame, rows), may_come);
}

// Log-probabilities are those of the model, before penalties and filters.
void Decoder::choose(Frame& frame, Tensor logits, std::span<const Input* const> choosing, const Choices& choices) {
  std::vector<SamplingRow> rows;
  bool penalizes = false, filters = false;
  for (const Input* input : choosing) {
    rows.push_back(row_of(*input->sampling, input->draw));
    penalizes |= input->sampling->penalizes();
    filters |= input->filter != nullptr;
  }
  const Tensor how = frame.tensor(logits.rows, kSamplingColumns, DType::f32);
  backend_.upload(rows.data(), how);
  Tensor raw = logits;
  if ((penalizes || filters) && !choices.logprobs.empty()) {
    raw = frame.tensor(logits.rows, logits.cols, DType::f32);
    backend_.copy(logits, raw);
  }
  if (penalizes) penalize(frame, logits, choosing);
  if (filters) allow(frame, logits, choosing);  // last: nothing is computed with what is forbidden
  backend_.sample(logits, how, choices.tokens);
  if (choices.logprobs.empty()) return;
  backend_.log_probabilities(raw, choices.tokens, choices.logprobs, choices.top_tokens, choices.top_logprobs);
}

std::vector<Chosen> Decoder::read(std::span<const std::optional<int64_t>> tops, const Choices& c) {
  const size_t n = tops.size(), k = static_cast<size_t>(c.top_tokens.cols);
  std::vector<int32_t> tokens(n), top_tokens(n * k);
  std::vector<float> logprobs(n), top_logprobs(n * k);
  backend_.download(c.tokens, tokens.data());
  if (!c.logprobs.empty()) backend_.download(c.logprobs, logprobs.data());
  if (k > 0) {
    backend_.download(c.top_tokens, top_tokens.data());
    backend_.download(c.top_logprobs, top_logprobs.data());
  }
  std::vector<Chosen> chosen;
  for (size_t i = 0; i < n; ++i) {
    Chosen& one = chosen.emplace_back(Chosen{.id = tokens[i]});
    if (!tops[i]) continue;
    one.logprob = logprobs[i];
    for (size_t j = i * k; j < i * k + static_cast<size_t>(*tops[i]); ++j) {
      one.top.push_back({top_tokens[j], top_logprobs[j]});
    }
  }
  return chosen;
}

Decoder::Choices Decoder::make_choices(Frame& frame, int64_t rows, std::optional<int64_t> top) {
  Choices choices{.tokens = frame.tensor(rows, 1, DType::i32)};
  if (top) {
    choices.logprobs = frame.tensor(rows, 1, DType::f32);
    choices.top_tokens = frame.tensor(rows, *top, DType::i32);
    choices.top_logprobs = frame.tensor(rows, *top, DType::f32);
  }
  return choices;
}

void Decoder::share(const Choices& choices) {
  for (const Tensor t : {choices.tokens, choices.logprobs, choices.top_tokens, choices.top_logprobs}) {
    if (t.size() > 0) pp_.broadcast(t, pp_.size() - 1);
  }
}

void Decoder::score(Tensor x, std::span<const Input> inputs) {
  int32_t first = 0;
  for (const Input& input : inputs) {
    const Input::Scoring& asked = input.scored;
    for (size_t begin = 0; begin < asked.tokens.size(); begin += kScoredRows) {
      Frame frame(scratch_);
      const auto labels = asked.tokens.subspan(begin, std::min<size_t>(kScoredRows, asked.tokens.size() - begin));
      const int64_t n = static_cast<int64_t>(labels.size());
      const Choices scores = make_choices(frame, n, asked.top);
      backend_.upload(labels.data(), scores.tokens);
      if (stage_.head()) {
        std::vector<int32_t> rows(labels.size());
        std::iota(rows.begin(), rows.end(),
                  first + static_cast<int32_t>(asked.first_row + static_cast<int64_t>(begin)));
        const AdapterRows adapter{n, input.slot};
        const Tensor at = logits(frame, x, upload(frame, rows), {&adapter, 1});
        backend_.log_probabilities(at, scores.tokens, scores.logprobs, scores.top_tokens, scores.top_logprobs);
      }
      share(scores);
      const std::vector<std::optional<int64_t>> tops(labels.size(), asked.top);
      const std::vector<Chosen> read_back = read(tops, scores);
      asked.scores->insert(asked.scores->end(), read_back.begin(), read_back.end());
    }
    first += static_cast<int32_t>(input.ids.size());
  }
}

bool Decoder::replays(std::span<const Input> inputs) const {
  if (replays_ == nullptr || inputs.empty() || static_cast<int64_t>(inputs.size()) > most_replayed_) return false;
  return std::ranges::all_of(inputs, [&](const Input& input) {
    return input.ids.size() == 1 && input.slot == inputs.front().slot && input.sampling != nullptr &&
           !input.sampling->penalizes() && !input.sampling->logprobs && input.filter == nullptr &&
           input.scored.tokens.empty();
  });
}

// Everything that is not the same in the next pass is uploaded first, to tensors at the scratch's beginning.
std::vector<Chosen> Decoder::replayed(std::span<const Input> inputs) {
  Frame frame(scratch_);
  Rows rows = take(inputs);
  std::vector<SamplingRow> how;
  for (const Input& input : inputs) how.push_back(row_of(*input.sampling, input.draw));
  const int64_t padded = std::min<int64_t>(static_cast<int64_t>(std::bit_ceil(inputs.size())), most_replayed_);
  const auto repeat_last = [&](auto& items) {
    items.resize(static_cast<size_t>(padded), decltype(items.back())(items.back()));
  };
  for (std::vector<int32_t>* items : {&rows.ids, &rows.positions, &rows.cache_rows}) repeat_last(*items);
  repeat_last(rows.segments);
  repeat_last(how);
  for (size_t i = inputs.size(); i < rows.segments.size(); ++i) rows.segments[i].q0 = static_cast<int64_t>(i);
  std::vector<int32_t> numbers(static_cast<size_t>(padded));
  std::iota(numbers.begin(), numbers.end(), 0);
  const AdapterRows adapter{padded, inputs.front().slot};

  const Tensor ids = upload(frame, rows.ids), positions = upload(frame, rows.positions),
               cache_rows = upload(frame, rows.cache_rows), all = upload(frame, numbers),
               choices = frame.tensor(padded, kSamplingColumns, DType::f32),
               tokens = frame.tensor(padded, 1, DType::i32),
               x = frame.tensor(padded, stage_.config().hidden, stage_.dtype());
  backend_.upload(how.data(), choices);
  const auto enqueue = [&] {
    Frame inner(scratch_);
    Context ctx = context(ids, positions, cache_rows, rows.segments, {&adapter, 1});
    stage_.embed(ctx, x);
    run_alone(stage_.forward(ctx, x, {}));
    backend_.sample(logits(inner, x, all, {&adapter, 1}), choices, tokens);
  };
  replays_->replay({.key = {std::bit_cast<int64_t>(ids.data), padded, adapter.slot},
                    .segments = rows.segments,
                    .block_size = KvPool::kBlockTokens},
                   enqueue);
  return read(std::vector<std::optional<int64_t>>(inputs.size()),
              {.tokens = tokens.rows_from(0, static_cast<int64_t>(inputs.size()))});
}

std::vector<Chosen> Decoder::append(std::span<const Input> inputs) {
  if (replays(inputs)) return replayed(inputs);
  Frame frame(scratch_);
  const Tensor x = pass(frame, inputs);
  score(x, inputs);
  std::vector<const Input*> choosing;
  std::vector<int32_t> last_rows;
  std::vector<AdapterRows> adapters;
  std::vector<std::optional<int64_t>> tops;
  std::optional<int64_t> top;
  int32_t row = -1;
  for (const Input& input : inputs) {
    row += static_cast<int32_t>(input.ids.size());
    if (input.sampling == nullptr) continue;
    choosing.push_back(&input);
    last_rows.push_back(row);
    adapters.push_back({1, input.slot});
    tops.push_back(input.sampling->logprobs);
    top = std::max(top, tops.back());
  }
  if (choosing.empty()) return {};
  const Choices choices = make_choices(frame, static_cast<int64_t>(choosing.size()), top);
  if (stage_.head()) choose(frame, logits(frame, x, upload(frame, last_rows), adapters), choosing, choices);
  share(choices);
  return read(tops, choices);
}

std::vector<std::vector<float>> Decoder::append_for_logits(std::span<const Input> inputs) {
  require(pp_.size() == 1, "logits are given where one stage has the whole model");
  Frame frame(scratch_);
  const Tensor x = pass(frame, inputs);
  std::vector<int32_t> last_rows;
  std::vector<AdapterRows> adapters;
  int32_t row = -1;
  for (const Input& input : inputs) {
    last_rows.push_back(row += static_cast<int32_t>(input.ids.size()));
    adapters.push_back({1, input.slot});
  }
  const Tensor all = logits(frame, x, upload(frame, last_rows), adapters);
  std::vector<std::vector<float>> rows;
  for (int64_t i = 0; i < all.rows; ++i) {
    backend_.download(all.rows_from(i, 1), rows.emplace_back(static_cast<size_t>(all.cols)).data());
  }
  return rows;
}

void Decoder::rehearse(int64_t rows, int64_t chosen, const Sampling& sampling, bool filtered,
                       std::optional<int64_t> scored) {
  AnyToken any;
  const std::vector<int32_t> ids(static_cast<size_t>(rows - chosen + 1));
  // Together the sequences hold no more tokens than the pool.
  std::vector<int32_t> history;  // apart from the tokens with a bias, which are seldom the last ones
  for (int64_t i = std::min(stage_.config().vocab, pool_.tokens() / chosen + 1); i > 0; --i) {
    history.push_back(static_cast<int32_t>(stage_.config().vocab - i));
  }
  std::vector<CachedSequence> sequences(static_cast<size_t>(chosen));
  std::vector<Input> inputs;
  for (CachedSequence& s : sequences) {
    const auto taken = std::span(ids).first(inputs.empty() ? ids.size() : 1);
    s.blocks.resize(static_cast<size_t>(KvPool::blocks_for(static_cast<int64_t>(taken.size()))));
    inputs.push_back({.sequence = &s,
                      .ids = taken,
                      .sampling = &sampling,
                      .filter = filtered ? &any : nullptr,
                      .prompt = history,
                      .answer = history});
  }
  std::vector<Chosen> scores;
  if (scored) inputs.front().scored = {.tokens = ids, .top = *scored, .scores = &scores};
  append(inputs);
}

}  // namespace drover
