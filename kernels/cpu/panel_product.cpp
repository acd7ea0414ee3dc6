#include "kernels/cpu/panel_product.h"

#include <algorithm>

#include "kernels/cpu/attention_common.h"
#include "kernels/cpu/isa.h"

namespace drover::cpu {

namespace {

constexpr int64_t kPackedFloats = int64_t{4} << 20;  // of op(a): 16 MiB
constexpr int64_t kDepth = 768;                      // of a band at a time: with three vectors of columns 144 KiB
constexpr int64_t kPartRows = 512;                   // that a thread multiplies by a band which it has packed
constexpr int64_t kPackedPanels = 8;                 // at a time, so that columns of a matrix are read a line at a time
constexpr int64_t kFewColumns = 64;                  // a result of so many is computed across: op(b) is packed then

Trans other(Trans trans) { return trans == Trans::no ? Trans::yes : Trans::no; }

Tensor sum_part(bool along_columns, Tensor t, int64_t begin, int64_t count) {
  return along_columns ? t.columns(begin, count) : t.rows_from(begin, count);
}

}  // namespace

PanelProduct::PanelProduct(int threads)
    : threads_(threads),
      kernels_(isa() == Isa::avx2 ? avx2::kPanelKernels : avx512::kPanelKernels),
      packed_(std::make_unique_for_overwrite<float[]>(kPackedFloats)) {}

int64_t PanelProduct::workspace_bytes(int64_t rows) const {
  const int64_t floats = std::min(rows, kPackedFloats / kLongestSum) * kLongestSum;
  return floats * static_cast<int64_t>(sizeof(float));
}

// Rows [begin, begin + count) of c.
struct PanelProduct::Rows {
  const Call& call;
  bool c_across;
  int64_t m, n;  // of the product
  int64_t begin, count;
  int64_t k;                   // the sum's length, without the terms
  int64_t depth;               // numbers of a packed row
  std::vector<int64_t> terms;  // where their u begin there
};

void PanelProduct::operator()(const Call& call) {
  if (call.c.size() == 0) return;
  require(call.terms.empty() || call.alpha == 1, "terms are added to a product as it is");
  const bool a_along = call.ta == Trans::no, b_along = call.tb == Trans::yes;
  const int64_t k = a_along ? call.a.cols : call.a.rows;
  if (k > kLongestSum && call.c.dtype == DType::f32) {
    for (int64_t begin = 0; begin < k; begin += kLongestSum) {
      const int64_t count = std::min(kLongestSum, k - begin);
      Call part = call;
      part.a = sum_part(a_along, call.a, begin, count);
      part.b = sum_part(b_along, call.b, begin, count);
      if (begin > 0) part.beta = 1;
      if (begin + count < k) part.terms = {};
      (*this)(part);
    }
    return;
  }
  if (call.terms.empty() && call.c.cols <= kFewColumns && call.c.cols < call.c.rows)
    return multiply_all({other(call.tb), other(call.ta), call.alpha, call.b, call.a, call.beta, call.c}, true);
  multiply_all(call, false);
}

void PanelProduct::multiply_all(const Call& call, bool c_across) {
  const int64_t k = call.ta == Trans::no ? call.a.cols : call.a.rows;
  Rows rows{.call = call,
            .c_across = c_across,
            .m = c_across ? call.c.cols : call.c.rows,
            .n = c_across ? call.c.rows : call.c.cols,
            .begin = 0,
            .count = 0,
            .k = k,
            .depth = whole_numbers(k),
            .terms = {}};
  for (const PanelTerm& term : call.terms) {
    rows.terms.push_back(rows.depth);
    rows.depth += whole_numbers(term.u.cols);
  }
  const int64_t panels = kPackedFloats / std::max<int64_t>(rows.depth * kernels_.rows, 1);
  require(panels > 0, "a panel of a product fits its scratch");
  const int64_t at_once = panels * kernels_.rows;
  for (; rows.begin < rows.m; rows.begin += at_once) {
    rows.count = std::min(at_once, rows.m - rows.begin);
    pack(rows);
    multiply(rows);
  }
}

void PanelProduct::pack(const Rows& rows) {
  const Call& call = rows.call;
  const int64_t group = kPackedPanels * kernels_.rows;
#pragma omp parallel for num_threads(threads_) schedule(static)
  for (int64_t i = 0; i < rows.count; i += group) {
    const int64_t first = rows.begin + i, lines = std::min(group, rows.count - i);
    float* panels = packed_.get() + i * rows.depth;
    kernels_.pack_rows({call.a, call.ta == Trans::yes, first, lines, 0, rows.k}, rows.depth, panels);
    for (size_t t = 0; t < call.terms.size(); ++t) {
      const Tensor u = call.terms[t].u;
      kernels_.pack_rows({u, false, first, lines, 0, u.cols}, rows.depth, panels + rows.terms[t] * kernels_.rows);
    }
  }
}

void PanelProduct::multiply(const Rows& rows) {
  const int64_t bands = (rows.n + kernels_.columns - 1) / kernels_.columns;
  const int64_t panels = (rows.count + kernels_.rows - 1) / kernels_.rows;
  // A few tasks for each thread, so that none waits long for the last one.
  const int64_t wanted = std::max((rows.count + kPartRows - 1) / kPartRows, (4 * threads_ + bands - 1) / bands);
  const int64_t part = std::max<int64_t>((panels + wanted - 1) / wanted, 1), parts = (panels + part - 1) / part;
#pragma omp parallel for num_threads(threads_) schedule(dynamic)
  for (int64_t task = 0; task < bands * parts; ++task) {
    const int64_t panel = task % parts * part;
    multiply_band(rows, task / parts * kernels_.columns, panel, std::min(part, panels - panel));
  }
}

// A band's columns of a term; zeros where it has none.
void PanelProduct::pack_term(const PanelTerm& term, int64_t column, int64_t columns, float* to, float* some) const {
  const int64_t begin = std::max(column, term.column), end = std::min(column + columns, term.column + term.columns()),
                r = term.u.cols;
  const PanelSource source{term.b, term.trans == Trans::no, begin - term.column, end - begin, 0, r};
  if (end - begin == columns) return kernels_.pack_columns(source, to);
  kernels_.pack_columns(source, some);
  const int64_t width = kernels_.whole_vectors(columns), some_width = kernels_.whole_vectors(end - begin);
  std::fill_n(to, r * width, 0.0f);
  for (int64_t l = 0; l < r; ++l) std::copy_n(some + l * some_width, end - begin, to + l * width + begin - column);
}

// Of the band that begins at a column, panels [panel, panel + panels).
void PanelProduct::multiply_band(const Rows& rows, int64_t column, int64_t panel, int64_t panels) const {
  const Call& call = rows.call;
  const int64_t columns = std::min(kernels_.columns, rows.n - column);
  int64_t term_depth = 0;
  for (const PanelTerm& term : call.terms) term_depth += whole_numbers(term.u.cols);
  const int64_t depth = std::min(whole_numbers(rows.k), kDepth);
  const bool split = rows.k > kDepth;
  const TileBuffers buffers({(depth + term_depth) * kernels_.columns,
                             split ? panels * kernels_.rows * kernels_.columns : 0, term_depth * kernels_.columns});
  const int64_t first_row = rows.begin + panel * kernels_.rows,
                count = std::min(panels * kernels_.rows, rows.begin + rows.count - first_row);
  Band band{.panels = packed_.get() + panel * kernels_.rows * rows.depth,
            .depth = rows.depth,
            .parts = {},
            .sums = buffers[1],
            .first = true,
            .last = false,
            .alpha = call.alpha,
            .beta = call.beta,
            .c = rows.c_across ? call.c.rows_from(column, columns).columns(first_row, count)
                               : call.c.rows_from(first_row, count).columns(column, columns),
            .c_across = rows.c_across};
  std::vector<BandPart> parts;
  for (int64_t begin = 0; begin < std::max<int64_t>(rows.k, 1); begin += kDepth) {
    float* to = buffers[0];
    parts.assign(1, {begin, std::min(kDepth, rows.k - begin), to});
    kernels_.pack_columns({call.b, call.tb == Trans::no, column, columns, begin, parts[0].count}, to);
    band.last = begin + kDepth >= rows.k;
    for (size_t i = 0; band.last && i < call.terms.size(); ++i) {
      const PanelTerm& term = call.terms[i];
      if (column + columns <= term.column || term.column + term.columns() <= column) continue;
      to += whole_numbers(parts.back().count) * kernels_.columns;
      parts.push_back({rows.terms[i], term.u.cols, to});
      pack_term(term, column, columns, to, buffers[2]);
    }
    band.parts = parts;
    kernels_.multiply(band);
    band.first = false;
  }
}

}  // namespace drover::cpu
