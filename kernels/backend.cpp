#include "kernels/backend.h"

#include <chrono>

namespace drover {

namespace {

struct Arrived : Reading {
  std::vector<double> numbers;
  std::span<const double> values() override { return numbers; }
};

struct HostMoment : Moment {
  std::chrono::steady_clock::time_point at = std::chrono::steady_clock::now();
  double seconds_until(const Moment& later) const override { return std::chrono::duration<double>(dynamic_cast<const HostMoment&>(later).at - at).count(); }
};

}  // namespace

void Backend::copy_all(std::span<const CopyPair> pairs) {
  for (const CopyPair& pair : pairs) copy(pair.from, pair.to);
}

std::unique_ptr<Weight> Backend::make_weight(Arena& arena, const WeightShape& shape) {
  return traits().lay_out(arena, shape);
}

void Backend::load_weight(Weight& w, int64_t row, int64_t rows, const std::function<void(Tensor)>& fill) {
  fill(static_cast<const DenseWeight&>(w).values.rows_from(row, rows));
}

void Backend::low_rank_backward(Tensor dy, std::span<const LowRankGradient> terms, Tensor v) {
  int64_t rank = 0;
  for (const LowRankGradient& term : terms) {
    const Tensor dy_m = dy.columns(term.column, term.b.rows);
    gemm(Trans::no, Trans::no, term.scale, dy_m, term.b, 0, v.columns(rank, term.b.cols));
    gemm(Trans::yes, Trans::no, 1, dy_m, term.u, 1, term.grad_b);
    rank += term.b.cols;
  }
  if (v.cols > rank) zero(v.columns(rank, v.cols - rank));
}

std::unique_ptr<Moment> Backend::moment() { return std::make_unique<HostMoment>(); }

std::unique_ptr<Reading> Backend::read_later(Tensor from) {
  auto reading = std::make_unique<Arrived>();
  reading->numbers.resize(static_cast<size_t>(from.size()));
  require(from.dtype == DType::f64, "what is read later is f64");
  download(from, reading->numbers.data());
  return reading;
}

}  // namespace drover
