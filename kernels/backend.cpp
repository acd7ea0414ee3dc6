// Every op once for all backends: what must hold of its operands, what it costs, and the kernel that does it. Here what
// moves numbers and multiplies matrices; the others are in backend_ops.cpp.
#include "kernels/backend.h"

#include <chrono>

#include "kernels/op_checks.h"

namespace drover {

namespace {

bool copyable(Tensor from, Tensor to) {
  const auto whole = [](DType type) { return type == DType::i32 || type == DType::u8; };
  return same_shape(from, to) && (from.dtype == to.dtype || (!whole(from.dtype) && !whole(to.dtype)));
}

struct Arrived : Reading {
  std::vector<double> numbers;
  void wait() override {}
  std::span<const double> values() override { return numbers; }
};

struct HostMoment : Moment {
  std::chrono::steady_clock::time_point at = std::chrono::steady_clock::now();
  void wait() override {}
  bool is_reached() const override { return true; }
  double seconds_until(Moment& later) override {
    return std::chrono::duration<double>(dynamic_cast<HostMoment&>(later).at - at).count();
  }
};

}  // namespace

// --- moving --------------------------------------------------------------------------------------

void Backend::copy(Tensor from, Tensor to) {
  require(copyable(from, to), "copy keeps the shape");
  issue([&] { return call_on("copy", from, 0, bytes_of(from, to)); }, [&] { do_copy(from, to); });
}

void Backend::copy_all(std::span<const CopyPair> pairs) {
  for (const CopyPair& pair : pairs) require(copyable(pair.from, pair.to), "copy keeps the shape");
  const auto describe = [&] {
    OpCall call{.op = "copy_all"};
    for (const auto& [from, to] : pairs) call.bytes += bytes_of(from, to);
    return call;
  };
  issue(describe, [&] { do_copy_all(pairs); });
}

void Backend::do_copy_all(std::span<const CopyPair> pairs) {
  for (const CopyPair& pair : pairs) copy(pair.from, pair.to);
}

std::unique_ptr<Weight> Backend::make_weight(Arena& arena, const WeightShape& shape) {
  return traits().lay_out(arena, shape);
}

void Backend::load_weight(Weight& w, int64_t row, int64_t rows, const std::function<void(Tensor)>& fill) {
  fill(static_cast<const DenseWeight&>(w).values.rows_from(row, rows));
}

void Backend::zero(Tensor x) {
  issue([&] { return call_on("zero", x, 0, bytes_of(x)); }, [&] { do_zero(x); });
}

void Backend::upload(const void* host, Tensor to) {
  issue([&] { return call_on("upload", to, 0, bytes_of(to)); }, [&] { do_upload(host, to); });
}

std::unique_ptr<Transfer> Backend::start_upload(const void* host, Tensor to) {
  std::unique_ptr<Transfer> transfer;
  issue([&] { return call_on("start_upload", to, 0, bytes_of(to)); }, [&] { transfer = do_start_upload(host, to); });
  return transfer;
}

std::unique_ptr<Transfer> Backend::do_start_upload(const void* host, Tensor to) {
  upload(host, to);
  return done_transfer();
}

void Backend::download(Tensor from, void* host) {
  issue([&] { return call_on("download", from, 0, bytes_of(from)); }, [&] { do_download(from, host); });
}

std::unique_ptr<Reading> Backend::read_later(Tensor from) {
  require(from.dtype == DType::f64 && from.contiguous(), "what is read later is a vector of f64");
  std::unique_ptr<Reading> reading;
  issue([&] { return call_on("read_later", from, 0, bytes_of(from)); }, [&] { reading = do_read_later(from); });
  return reading;
}

std::unique_ptr<Reading> Backend::do_read_later(Tensor from) {
  auto reading = std::make_unique<Arrived>();
  reading->numbers.resize(static_cast<size_t>(from.size()));
  download(from, reading->numbers.data());
  return reading;
}

std::unique_ptr<Moment> Backend::moment() { return std::make_unique<HostMoment>(); }

void Backend::gather_rows(Tensor x, Tensor index, Tensor y) {
  require(x.dtype == y.dtype && x.cols == y.cols && is_vector(index, y.rows, DType::i32),
          "gather_rows keeps dtype and width, and has an index for every row of y");
  issue([&] { return call_on("gather_rows", y, 0, bytes_of(index, y, y)); }, [&] { do_gather_rows(x, index, y); });
}

void Backend::scatter_rows(Tensor x, Tensor index, Tensor y) {
  require(x.dtype == y.dtype && x.cols == y.cols && is_vector(index, x.rows, DType::i32),
          "scatter_rows keeps dtype and width, and has an index for every row of x");
  issue([&] { return call_on("scatter_rows", x, 0, bytes_of(index, x, x)); }, [&] { do_scatter_rows(x, index, y); });
}

// --- linear algebra ------------------------------------------------------------------------------

void Backend::gemm(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
  const int64_t k = ta == Trans::no ? a.cols : a.rows;
  require(c.rows == (ta == Trans::no ? a.rows : a.cols) && c.cols == (tb == Trans::no ? b.cols : b.rows) &&
              k == (tb == Trans::no ? b.rows : b.cols),
          "gemm's shapes fit");
  require(is_float(a) && is_float(b) && is_float(c), "gemm multiplies floats");
  const auto describe = [&] {
    return product("gemm", a, b, 2 * c.rows * c.cols * k, bytes_of(a, b, c) + (beta == 0 ? 0 : bytes_of(c)));
  };
  issue(describe, [&] { do_gemm(ta, tb, alpha, a, b, beta, c); });
}

namespace {

// Σ r of a linear's terms, whose shapes fit.
int64_t checked_rank(const LowRankTerms& low_rank, int64_t rows, const Weight& w, SumOrder order) {
  int64_t rank = 0;
  for (const LowRank& term : low_rank.terms) {
    require(term.a.cols == w.in() && term.a.rows == term.b.cols && term.column >= 0 &&
                term.column + term.b.rows <= w.out() && is_float(term.a) && is_float(term.b),
            "the shapes of linear's low-rank terms fit");
    require(order == SumOrder::fastest || term.mask.p == 0, "a linear summed by row drops nothing");
    rank += term.a.rows;
  }
  require(rank == 0 || (low_rank.u.rows == rows && low_rank.u.cols == rank && is_float(low_rank.u)),
          "u has a row for each of x's and a column for each rank");
  return rank;
}

void count_terms(const LowRankTerms& low_rank, int64_t rows, OpCall& call) {
  for (const LowRank& term : low_rank.terms) {
    call.flops += 2 * rows * (term.a.size() + term.b.size());
    call.bytes += bytes_of(term.a, term.b);
  }
  if (!low_rank.terms.empty()) call.bytes += bytes_of(low_rank.u);
}

}  // namespace

void Backend::linear(Tensor x, const Weight& w, const LowRankTerms& low_rank, bool accumulate, Tensor y,
                     SumOrder order) {
  require(x.cols == w.in() && y.cols == w.out() && x.rows == y.rows, "linear's shapes fit");
  require(is_float(x) && is_float(y), "linear multiplies floats");
  checked_rank(low_rank, x.rows, w, order);
  const auto describe = [&] {
    OpCall call = product("linear", x, w, 2 * x.rows * w.out() * w.in(), bytes_of(x, y) + w.bytes());
    call.generates = order == SumOrder::by_row;
    if (accumulate) call.bytes += bytes_of(y);
    count_terms(low_rank, x.rows, call);
    return call;
  };
  issue(describe, [&] { do_linear(x, w, low_rank, accumulate, y, order); });
}

void Backend::linear_of_parts(Tensor x, const Weight& w, std::span<const LinearPart> parts, bool accumulate, Tensor y) {
  require(x.cols == w.in() && y.cols == w.out() && x.rows == y.rows, "linear_of_parts' shapes fit");
  require(is_float(x) && is_float(y), "linear_of_parts multiplies floats");
  int64_t rows = 0;
  for (const LinearPart& part : parts) {
    require(part.rows > 0, "a part has rows");
    checked_rank(part.low_rank, part.rows, w, SumOrder::by_row);
    rows += part.rows;
  }
  require(rows == x.rows, "the parts are all rows of x");
  const auto describe = [&] {
    OpCall call = product("linear_of_parts", x, w, 2 * x.rows * w.out() * w.in(), bytes_of(x, y) + w.bytes());
    call.generates = true;
    if (accumulate) call.bytes += bytes_of(y);
    for (const LinearPart& part : parts) count_terms(part.low_rank, part.rows, call);
    return call;
  };
  issue(describe, [&] { do_linear_of_parts(x, w, parts, accumulate, y); });
}

void Backend::do_linear_of_parts(Tensor x, const Weight& w, std::span<const LinearPart> parts, bool accumulate,
                                 Tensor y) {
  int64_t begin = 0;
  for (const LinearPart& part : parts) {
    linear(x.rows_from(begin, part.rows), w, part.low_rank, accumulate, y.rows_from(begin, part.rows),
           SumOrder::by_row);
    begin += part.rows;
  }
}

void Backend::linear_dx(Tensor dy, const Weight& w, Tensor v, Tensor a, Tensor dx) {
  require(dy.cols == w.out() && dx.cols == w.in() && dx.rows == dy.rows, "linear_dx's shapes fit");
  require(is_float(dy) && is_float(dx), "linear_dx multiplies floats");
  require(v.empty() || (v.rows == dy.rows && v.cols == a.rows && a.cols == w.in() && is_float(v) && is_float(a)),
          "the shapes of linear_dx's low-rank term fit");
  const auto describe = [&] {
    return product("linear_dx", dy, w, 2 * dy.rows * w.out() * w.in() + 2 * v.rows * v.cols * a.cols,
                   bytes_of(dy, v, a, dx) + w.bytes());
  };
  issue(describe, [&] { do_linear_dx(dy, w, v, a, dx); });
}

void Backend::low_rank_backward(Tensor dy, std::span<const LowRankGradient> terms, Tensor v) {
  int64_t rank = 0;
  for (const LowRankGradient& term : terms) {
    require(term.u.rows == dy.rows && term.u.cols == term.b.cols && same_shape(term.grad_b, term.b) &&
                term.column >= 0 && term.column + term.b.rows <= dy.cols && term.grad_b.dtype == DType::f32,
            "low_rank_backward's shapes fit");
    rank += term.b.cols;
  }
  require(v.rows == dy.rows && rank <= v.cols, "v has a row for each of dy's and a column for each rank");
  const auto describe = [&] {
    OpCall call{.op = "low_rank_backward", .a = {dy.rows, dy.cols}, .dtype = dy.dtype, .bytes = bytes_of(dy, v)};
    for (const LowRankGradient& term : terms) {
      call.b = {call.b.rows + term.b.rows, term.b.cols};
      call.flops += 4 * dy.rows * term.b.rows * term.b.cols;
      call.bytes += bytes_of(term.u, term.b, term.grad_b, term.grad_b);
    }
    return call;
  };
  issue(describe, [&] { do_low_rank_backward(dy, terms, v); });
}

void Backend::do_low_rank_backward(Tensor dy, std::span<const LowRankGradient> terms, Tensor v) {
  int64_t rank = 0;
  for (const LowRankGradient& term : terms) {
    const Tensor dy_m = dy.columns(term.column, term.b.rows);
    gemm(Trans::no, Trans::no, term.scale, dy_m, term.b, 0, v.columns(rank, term.b.cols));
    gemm(Trans::yes, Trans::no, 1, dy_m, term.u, 1, term.grad_b);
    rank += term.b.cols;
  }
  if (v.cols > rank) zero(v.columns(rank, v.cols - rank));
}

}  // namespace drover
