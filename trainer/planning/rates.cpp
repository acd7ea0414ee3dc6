#include "trainer/planning/rates.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "kernels/base/require.h"

namespace drover {

namespace {

constexpr int kDetails = 3;  // how closely a group of calls is looked for, the closest first
constexpr size_t kNeighbours = 12;

double log_of(int64_t x) { return std::log(static_cast<double>(std::max<int64_t>(x, 1))); }

double amount_of(const OpCall& call) {
  return static_cast<double>(std::max<int64_t>(counts_flops(call) ? call.flops : call.bytes, 1));
}

OpCall call_of(const OpSample& s) {
  return {.op = s.op,
          .a = s.a,
          .b = s.b,
          .dtype = s.dtype,
          .format = s.format,
          .products = s.products,
          .generates = s.generates,
          .flops = s.flops,
          .bytes = s.bytes};
}

// Solves the N equations m·x = y, m symmetric and positive, in place.
template <size_t N>
std::array<double, N> solved(std::array<std::array<double, N>, N> m, std::array<double, N> y) {
  for (size_t i = 0; i < N; ++i) {
    for (size_t r = i + 1; r < N; ++r) {
      const double factor = m[r][i] / m[i][i];
      for (size_t c = i; c < N; ++c) m[r][c] -= factor * m[i][c];
      y[r] -= factor * y[i];
    }
  }
  for (size_t i = N; i-- > 0;) {
    for (size_t c = i + 1; c < N; ++c) y[i] -= m[i][c] * y[c];
    y[i] /= m[i][i];
  }
  return y;
}

}  // namespace

bool counts_flops(const OpCall& call) { return call.is_product() || call.op.starts_with("attention"); }

std::string kind_of(const OpCall& c) {
  return fmt::format("{} {} {} {} {} {} {} {} {} {} {}", c.op, c.a.rows, c.a.cols, c.b.rows, c.b.cols,
                     static_cast<int>(c.dtype), static_cast<int>(c.format), static_cast<int>(c.products), c.generates,
                     c.flops, c.bytes);
}

Rates::Sizes Rates::sizes_of(const OpCall& call) {
  if (call.is_product()) return {log_of(call.a.rows), log_of(call.a.cols), log_of(call.b.rows), log_of(call.b.cols)};
  if (counts_flops(call)) {  // keys that a query sees, in the mean
    const double queries = static_cast<double>(std::max<int64_t>(call.a.rows * call.a.cols, 1));
    return {std::log(std::max(static_cast<double>(call.flops) / queries, 1e-3)), log_of(call.a.rows),
            log_of(call.a.cols), log_of(call.b.cols)};
  }
  return {log_of(call.bytes), log_of(call.a.cols), 0, 0};
}

std::string Rates::key_of(const OpCall& call, int detail) {
  std::string key(call.op);
  if (detail == 0)
    return fmt::format("{} {} {} {} {}", key, name_of(call.dtype), static_cast<int>(call.format),
                       static_cast<int>(call.products), call.generates);
  return detail == 1 ? fmt::format("{} {}", key, call.generates) : key;
}

void Rates::add(const std::string& key, const Point& point) {
  const auto [at, is_new] = groups_.try_emplace(key, Group{{}, point.sizes, point.sizes, point.rate, point.rate});
  Group& group = at->second;
  for (size_t i = 0; i < kSizes; ++i) {
    group.least[i] = std::min(group.least[i], point.sizes[i]);
    group.most[i] = std::max(group.most[i], point.sizes[i]);
  }
  group.slowest = std::max(group.slowest, point.rate);
  group.fastest = std::min(group.fastest, point.rate);
  group.points.push_back(point);
}

Rates::Rates(RoughRates rough, const std::vector<OpSample>& ops, std::vector<MessageSample> messages)
    : rough_(std::move(rough)), messages_(std::move(messages)) {
  best_product_ = 0;
  for (const OpSample& sample : ops) {
    const OpCall call = call_of(sample);
    const Point point{sizes_of(call), std::log(sample.seconds / amount_of(call))};
    for (int detail = 0; detail < kDetails; ++detail) add(key_of(call, detail), point);
    if (call.is_product()) best_product_ = std::max(best_product_, static_cast<double>(call.flops) / sample.seconds);
  }
}

// A weighted least-squares plane through the nearest points: near ones weigh more, and slopes are held back a little,
// so that points which lie in a row, or on one another, still give one.
double Rates::interpolated(const Group& group, Sizes at) {
  for (size_t i = 0; i < kSizes; ++i) at[i] = std::clamp(at[i], group.least[i], group.most[i]);
  std::vector<std::pair<double, const Point*>> near;
  for (const Point& point : group.points) {
    double distance = 0;
    for (size_t i = 0; i < kSizes; ++i) distance += (point.sizes[i] - at[i]) * (point.sizes[i] - at[i]);
    near.emplace_back(distance, &point);
  }
  const size_t count = std::min(near.size(), kNeighbours);
  std::partial_sort(near.begin(), near.begin() + static_cast<std::ptrdiff_t>(count), near.end(),
                    [](const auto& x, const auto& y) { return x.first < y.first; });
  constexpr size_t kTerms = kSizes + 1;
  std::array<std::array<double, kTerms>, kTerms> matrix{};
  std::array<double, kTerms> right{};
  for (size_t n = 0; n < count; ++n) {
    const Point& point = *near[n].second;
    const double weight = 1 / (near[n].first * near[n].first + 1e-4);
    std::array<double, kTerms> term{1};
    for (size_t i = 0; i < kSizes; ++i) term[i + 1] = point.sizes[i] - at[i];
    for (size_t r = 0; r < kTerms; ++r) {
      right[r] += weight * term[r] * point.rate;
      for (size_t c = 0; c < kTerms; ++c) matrix[r][c] += weight * term[r] * term[c];
    }
  }
  for (size_t i = 1; i < kTerms; ++i) matrix[i][i] += 0.02 * matrix[0][0] + 1e-12;
  return std::clamp(solved(matrix, right)[0], group.fastest, group.slowest);
}

double Rates::rough_seconds(const OpCall& call) const {
  const double bytes = static_cast<double>(call.bytes) / rough_.memory, flops = static_cast<double>(call.flops);
  double computing = 0;
  if (call.is_product()) {
    const bool fp8 = call.products == Products::fp8 && rough_.product_fp8 > 0;
    computing = flops / (fp8 ? rough_.product_fp8 : rough_.product);
    if (!is_dense(call.format) && !fp8)  // the codes are widened to bf16 first, which is written and read
      computing += 4 * static_cast<double>(call.b.rows * call.b.cols) / rough_.memory;
  } else if (counts_flops(call)) {
    computing = flops / (call.op == "attention" ? rough_.attention : rough_.attention_backward);
  }
  return std::max({computing, bytes, rough_.call_seconds});
}

double Rates::seconds(const OpCall& call) const {
  for (int detail = 0; detail < kDetails; ++detail) {
    const auto found = groups_.find(key_of(call, detail));
    if (found != groups_.end()) return amount_of(call) * std::exp(interpolated(found->second, sizes_of(call)));
  }
  return rough_seconds(call);
}

namespace {

// What a rank sends of a ring's bytes: of a sum all but one of the parts twice, of a gather once.
double ring_share(std::string_view kind, int ranks) {
  const double n = ranks;
  return kind == "all_reduce" ? 2 * (n - 1) / n : kind == "all_gather" ? (n - 1) / n : 1;
}

}  // namespace

double Rates::message_seconds(std::string_view kind, int64_t bytes, int ranks, bool spread) const {
  if (ranks < 2) return 0;
  int measured = 0;  // the nearest number of ranks
  for (const MessageSample& m : messages_) {
    if (m.kind == kind && (measured == 0 || std::abs(m.ranks - ranks) < std::abs(measured - ranks))) measured = m.ranks;
  }
  const MessageSample *below = nullptr, *above = nullptr;
  for (const MessageSample& m : messages_) {
    if (spread || m.kind != kind || m.ranks != measured) continue;
    if (m.bytes <= bytes && (below == nullptr || m.bytes > below->bytes)) below = &m;
    if (m.bytes >= bytes && (above == nullptr || m.bytes < above->bytes)) above = &m;
  }
  if (below == nullptr && above == nullptr) {
    const double rate = spread ? rough_.network : rough_.link;
    return (spread ? rough_.network_seconds : rough_.link_seconds) +
           ring_share(kind, ranks) * static_cast<double>(bytes) / rate;
  }
  double seconds = 0;
  if (below == nullptr || (above != nullptr && below->bytes == above->bytes)) {
    seconds = above->seconds;
  } else if (above == nullptr) {
    seconds = below->seconds * static_cast<double>(bytes) / static_cast<double>(std::max<int64_t>(below->bytes, 1));
  } else {
    const double share = static_cast<double>(bytes - below->bytes) / static_cast<double>(above->bytes - below->bytes);
    seconds = below->seconds + share * (above->seconds - below->seconds);
  }
  return seconds * ring_share(kind, ranks) / ring_share(kind, measured);
}

}  // namespace drover
