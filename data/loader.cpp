#include "data/loader.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/base/error.h"
#include "kernels/base/philox.h"

namespace drover {

namespace {

// 0…n-1 in the order of their draws, those of a stream of its own.
std::vector<int64_t> by_draws(int64_t n, uint64_t seed, uint64_t stream) {
  std::vector<std::pair<uint64_t, int64_t>> draws;
  for (int64_t i = 0; i < n; ++i) {
    const PhiloxBlock block = philox(PhiloxKey::of(seed), static_cast<uint64_t>(i), stream);
    draws.emplace_back(block.lane[0] | static_cast<uint64_t>(block.lane[1]) << 32, i);
  }
  std::sort(draws.begin(), draws.end());
  std::vector<int64_t> order;
  for (const auto& [draw, row] : draws) order.push_back(row);
  return order;
}

// Rows [first, last) of the source `repeat` times.
void repeat_rows(int64_t first, int64_t last, double repeat, uint64_t seed, uint64_t stream,
                 std::vector<int64_t>& rows) {
  const auto n = static_cast<double>(last - first);
  const int64_t count = std::max<int64_t>(1, std::llround(repeat * n)), times = count / (last - first);
  for (int64_t time = 0; time < times; ++time) {
    for (int64_t row = first; row < last; ++row) rows.push_back(row);
  }
  std::vector<int64_t> taken = by_draws(last - first, seed, stream);
  taken.resize(static_cast<size_t>(count % (last - first)));
  std::ranges::sort(taken);
  for (const int64_t row : taken) rows.push_back(first + row);
}

}  // namespace

std::vector<int64_t> permutation(int64_t n, uint64_t seed, int64_t epoch) {
  return by_draws(n, seed, static_cast<uint64_t>(epoch) + 1);
}

std::vector<int64_t> rows_in_epoch(const TokenStore& store, uint64_t seed, int64_t epoch) {
  std::vector<int64_t> rows;
  if (store.repeats().empty()) {
    rows.resize(static_cast<size_t>(store.rows()));
    std::iota(rows.begin(), rows.end(), 0);
    return rows;
  }
  const auto source_of = [&](int64_t row) { return store.document(store.row(row).first).origin.source; };
  for (int64_t first = 0; first < store.rows();) {
    const int32_t source = source_of(first);
    int64_t last = first + 1;
    while (last < store.rows() && source_of(last) == source) ++last;
    // Streams that no order uses: those of (epoch, source).
    const uint64_t stream =
        uint64_t{1} << 63 | static_cast<uint64_t>(source) << 40 | (static_cast<uint64_t>(epoch) + 1);
    repeat_rows(first, last, store.repeats()[static_cast<size_t>(source)], seed, stream, rows);
    first = last;
  }
  return rows;
}

Loader::Loader(const TokenStore& store, const LoaderSettings& settings)
    : store_(store), settings_(settings), rows_(static_cast<int64_t>(rows_in_epoch(store, settings.seed, 0).size())) {}

int64_t Loader::steps_per_epoch() const {
  return (rows_ + settings_.global_batch_size - 1) / settings_.global_batch_size;
}

const std::vector<int64_t>& Loader::order_of(int64_t epoch) const {
  if (epoch == ordered_epoch_) return order_;
  const std::vector<int64_t> rows = rows_in_epoch(store_, settings_.seed, epoch);
  order_ = rows;
  if (settings_.shuffle) {
    const std::vector<int64_t> places = permutation(rows_, settings_.seed, epoch);
    std::ranges::transform(places, order_.begin(), [&](int64_t place) { return rows[static_cast<size_t>(place)]; });
  }
  ordered_epoch_ = epoch;
  return order_;
}

std::vector<int64_t> Loader::rows_of(StreamPosition p) const {
  const std::vector<int64_t>& order = order_of(p.epoch);
  const int64_t begin = p.step * settings_.global_batch_size,
                end = std::min(rows_, begin + settings_.global_batch_size);
  return {order.begin() + begin, order.begin() + end};
}

MicroBatch micro_batch_of(const TokenStore& store, std::span<const int64_t> rows, int64_t index) {
  MicroBatch m;
  m.index = index;
  for (int64_t row : rows) {
    const auto [first, last] = store.row(row);
    for (int64_t d = first; d < last; ++d) {
      const Document doc = store.document(d);
      const size_t n = doc.ids.size();
      m.spans.push_back({static_cast<int64_t>(m.tokens.size()), static_cast<int64_t>(n)});
      for (size_t i = 0; i < n; ++i) {
        const bool trained = i + 1 < n && doc.trained[i + 1] != 0;
        m.tokens.push_back(doc.ids[i]);
        m.labels.push_back(trained ? doc.ids[i + 1] : -1);
        m.weights.push_back(trained ? doc.weight : 0.0f);
        m.positions.push_back(static_cast<int32_t>(i));
        m.documents.push_back(static_cast<int32_t>(d));
      }
    }
  }
  return m;
}

Batch batch_of_rows(const TokenStore& store, std::span<const int64_t> rows, int64_t micro_batch_size, int dp_rank,
                    int dp_size) {
  Batch batch;
  const int64_t n = static_cast<int64_t>(rows.size());
  batch.total = (n + micro_batch_size - 1) / micro_batch_size;
  for (int64_t row : rows) {
    const auto [first, last] = store.row(row);
    batch.tokens += store.row_tokens(row);
    for (int64_t d = first; d < last; ++d) {
      const int64_t trained = store.trained_tokens(d, d + 1);
      batch.trained_tokens += trained;
      batch.weight_sum += static_cast<double>(trained) * store.document(d).weight;
    }
  }
  const int64_t begin = batch.total * dp_rank / dp_size, end = batch.total * (dp_rank + 1) / dp_size;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = i * micro_batch_size, count = std::min(micro_batch_size, n - first);
    batch.micro_batches.push_back(
        micro_batch_of(store, rows.subspan(static_cast<size_t>(first), static_cast<size_t>(count)), i));
  }
  return batch;
}

MicroBatchSize Loader::largest_micro_batch(int64_t steps) const {
  // Where the order does not change what lies together, one epoch has met all there is.
  const bool every_epoch_has_all = store_.repeats().empty();
  if (every_epoch_has_all && (!settings_.shuffle || settings_.micro_batch_size == 1))
    steps = std::min(steps, steps_per_epoch());
  MicroBatchSize largest;
  for (int64_t step = 0; step < steps; ++step) {
    const std::vector<int64_t> rows = rows_of(position_of(step));
    for (size_t begin = 0; begin < rows.size(); begin += static_cast<size_t>(settings_.micro_batch_size)) {
      int64_t tokens = 0, trained = 0;
      for (size_t i = begin; i < std::min(rows.size(), begin + static_cast<size_t>(settings_.micro_batch_size)); ++i) {
        const auto [first, last] = store_.row(rows[i]);
        tokens += store_.row_tokens(rows[i]);
        trained += store_.trained_tokens(first, last);
      }
      largest.tokens = std::max(largest.tokens, tokens);
      largest.trained_tokens = std::max(largest.trained_tokens, trained);
    }
  }
  return largest;
}

Batch Loader::load(StreamPosition position) const {
  const std::vector<int64_t> rows = rows_of(position);
  Batch batch = batch_of_rows(store_, rows, settings_.micro_batch_size, settings_.dp_rank, settings_.dp_size);
  if (batch.weight_sum <= 0) {
    fail(Fault::bad_data,
         "no token of the global batch is trained (epoch {}, step {}, rows {}); give its rows answers, or weights "
         "above 0",
         position.epoch + 1, position.step + 1, fmt::join(rows, ", "));
  }
  return batch;
}

}  // namespace drover
