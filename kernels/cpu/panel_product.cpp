#include "kernels/cpu/panel_product.h"

#include <algorithm>

#include "kernels/cpu/attention_common.h"
#include "kernels/cpu/isa.h"

namespace drover::cpu {

namespace {

// Of op(b), at once: in a cache that threads share. Very long sums take more, so that a block serves enough columns.
constexpr int64_t kPackedFloats = int64_t{512} << 10, kMostPackedFloats = int64_t{4} << 20, kFewestColumns = 256;
constexpr int64_t kBlockFloats = int64_t{32} << 10;  // of the operand that a thread packs: 128 KiB of its L2
constexpr int64_t kDepth = 768;                      // of the sums' index, at once
constexpr int64_t kTasks = 4;                        // for each thread, so that none waits long for the last one
constexpr int64_t kPackedDepth = 64;                 // of few rows, and of columns that are read across, by a thread
constexpr int64_t kFewRows = 512;
constexpr int64_t kTermNumbers = 256;  // of a packed row, as adapters have them
constexpr int64_t kFewColumns = 64;    // a result of so many is computed across where that is faster

Trans other(Trans trans) { return trans == Trans::no ? Trans::yes : Trans::no; }

Tensor sum_part(bool along_columns, Tensor t, int64_t begin, int64_t count) {
  return along_columns ? t.columns(begin, count) : t.rows_from(begin, count);
}

int64_t parts_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

}  // namespace

PanelProduct::PanelProduct(int threads)
    : threads_(threads),
      kernels_(isa() == Isa::avx2 ? avx2::kPanelKernels : avx512::kPanelKernels),
      memory_(lines_of(kMostPackedFloats * static_cast<int64_t>(sizeof(float)))),
      packed_(reinterpret_cast<float*>(memory_.get())) {}

int64_t PanelProduct::workspace_bytes(int64_t rows) const {
  const int64_t lines = std::max(kernels_.whole_panels(std::min(rows, kFewRows)), kFewestColumns);
  return std::min(lines * (kLongestSum + kTermNumbers), kMostPackedFloats) * static_cast<int64_t>(sizeof(float));
}

struct PanelProduct::Product {
  const Call& call;
  bool c_across;
  int64_t m, n, k;
  int64_t depth;               // numbers of a packed row or column
  std::vector<int64_t> terms;  // where each begins there
  int64_t chunk;               // of the sums' index, at once
  int64_t term_depth() const { return depth - whole_numbers(k); }
  int64_t block_depth() const { return chunk + term_depth(); }
  bool split() const { return k > chunk; }
};

struct PanelProduct::Task {  // a part of the result
  int64_t row, rows, column, columns;
};

// Packed lines of one operand: all their numbers, or those of a chunk and the terms.
struct PanelProduct::Side {
  float* data;
  int64_t depth;  // numbers of a line
  int64_t chunk;  // where the chunk's numbers are
  int64_t terms;  // where the first term's are
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
  const int64_t few = a_along ? kernels_.few_columns : kFewColumns;  // columns of a are read faster as bands
  if (call.terms.empty() && call.c.cols <= few && call.c.cols < call.c.rows)
    return multiply_all({other(call.tb), other(call.ta), call.alpha, call.b, call.a, call.beta, call.c}, true);
  multiply_all(call, false);
}

void PanelProduct::multiply_all(const Call& call, bool c_across) {
  const int64_t k = call.ta == Trans::no ? call.a.cols : call.a.rows, some_k = std::max<int64_t>(k, 1);
  Product product{.call = call,
                  .c_across = c_across,
                  .m = c_across ? call.c.cols : call.c.rows,
                  .n = c_across ? call.c.rows : call.c.cols,
                  .k = k,
                  .depth = whole_numbers(k),
                  .terms = {},
                  .chunk = whole_numbers(parts_of(some_k, parts_of(some_k, kDepth)))};
  for (const PanelTerm& term : call.terms) {
    product.terms.push_back(product.depth);
    product.depth += whole_numbers(term.u.cols);
  }
  const int64_t rows = std::max(kBlockFloats / product.block_depth() / kernels_.rows, int64_t{1}) * kernels_.rows;
  // Many rows would not stay in the cache that threads share, and a few bands are too few tasks.
  const int64_t most_rows = product.n >= kTasks * threads_ * kernels_.columns ? std::max(rows, kFewRows) : rows;
  if (product.m <= most_rows && kernels_.whole_panels(product.m) * product.depth <= kMostPackedFloats)
    return multiply_few_rows(product, 0, product.m);
  if (kernels_.columns * product.depth <= kMostPackedFloats) return multiply_blocks(product, rows);
  // Sums so long that not even a band of them fits.
  const int64_t at_once = kMostPackedFloats / product.depth / kernels_.rows * kernels_.rows;
  require(at_once > 0, "a panel of a product fits its scratch");
  for (int64_t row = 0; row < product.m; row += at_once)
    multiply_few_rows(product, row, std::min(at_once, product.m - row));
}

// op(a) is packed for all threads; each packs the bands that it multiplies.
void PanelProduct::multiply_few_rows(const Product& product, int64_t row, int64_t count) {
  const int64_t bands = parts_of(product.n, kernels_.columns),
                fit = std::max<int64_t>(kBlockFloats / (product.block_depth() * kernels_.columns), 1),
                columns = std::min(fit, parts_of(bands, kTasks * threads_)) * kernels_.columns;
  const Side rows{packed_, product.depth, 0, whole_numbers(product.k)};
#pragma omp parallel num_threads(threads_)
  {
#pragma omp for schedule(static)
    for (int64_t begin = 0; begin < std::max<int64_t>(product.k, 1); begin += kPackedDepth) {
      pack_rows(product, {row, count, 0, 0}, begin, std::min(kPackedDepth, product.k - begin),
                {rows.data, rows.depth, begin, rows.terms});
    }
#pragma omp for schedule(dynamic)
    for (int64_t column = 0; column < product.n; column += columns) {
      const Task task{row, count, column, std::min(columns, product.n - column)};
      const int64_t width = kernels_.whole_bands(task.columns);
      const TileBuffers buffers(
          {width * product.block_depth(), product.split() ? kernels_.whole_panels(count) * width : 0});
      const Side own{buffers[0], product.block_depth(), 0, product.chunk};
      for (int64_t begin = 0; begin < std::max<int64_t>(product.k, 1); begin += product.chunk) {
        pack_columns(product, task, begin, std::min(product.chunk, product.k - begin), own);
        multiply(product, task, begin, {rows.data, rows.depth, begin, rows.terms}, own, buffers[1]);
      }
    }
  }
}

// op(b) is packed for all threads, as much of it as fits; each packs the rows that it multiplies.
void PanelProduct::multiply_blocks(const Product& product, int64_t block_rows) {
  const int64_t depth = std::max<int64_t>(product.depth, 1), most = kMostPackedFloats / depth / kernels_.columns;
  const int64_t fewest = std::min(kFewestColumns / kernels_.columns, most),
                bands = parts_of(product.n, kernels_.columns),
                fit = std::clamp(kPackedFloats / depth / kernels_.columns, fewest, most),
                at_once = parts_of(bands, parts_of(bands, fit)) * kernels_.columns;
  for (int64_t column = 0; column < product.n; column += at_once) {
    const Task group{0, product.m, column, std::min(at_once, product.n - column)};
    pack_group(product, group);
    multiply_group(product, group, block_rows);
  }
}

// Packs op(b)'s columns of a group: all of them for some numbers where they lie across, else a band with all its
// numbers.
void PanelProduct::pack_group(const Product& product, const Task& group) {
  const bool across = product.call.tb == Trans::no;
  const int64_t columns = across ? kernels_.whole_bands(group.columns) : kernels_.columns,
                count = across ? kPackedDepth : std::max<int64_t>(product.k, 1);
#pragma omp parallel for num_threads(threads_) schedule(dynamic) collapse(2)
  for (int64_t column = 0; column < group.columns; column += columns) {
    for (int64_t begin = 0; begin < std::max<int64_t>(product.k, 1); begin += count) {
      const Task part{0, 0, group.column + column, std::min(columns, group.columns - column)};
      pack_columns(product, part, begin, std::min(count, product.k - begin),
                   {packed_ + column * product.depth, product.depth, begin, whole_numbers(product.k)});
    }
  }
}

void PanelProduct::multiply_group(const Product& product, const Task& group, int64_t block_rows) {
  // As many blocks for each thread, which differ by a panel at most.
  const int64_t panels = parts_of(product.m, kernels_.rows),
                blocks = std::min(parts_of(parts_of(product.m, block_rows), threads_) * threads_, panels);
  const int64_t bands = parts_of(group.columns, kernels_.columns), ranges = parts_of(kTasks * threads_, blocks);
  const int64_t columns = parts_of(bands, ranges) * kernels_.columns;
#pragma omp parallel for num_threads(threads_) schedule(dynamic) collapse(2)
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t column = 0; column < group.columns; column += columns) {
      const int64_t row = panels * block / blocks * kernels_.rows,
                    end = std::min(panels * (block + 1) / blocks * kernels_.rows, product.m);
      multiply_block(product, {row, end - row, group.column + column, std::min(columns, group.columns - column)},
                     packed_ + column * product.depth);
    }
  }
}

void PanelProduct::multiply_block(const Product& product, const Task& task, float* bands) const {
  const int64_t rows = kernels_.whole_panels(task.rows), depth = product.block_depth();
  const TileBuffers buffers({rows * depth, product.split() ? rows * kernels_.whole_vectors(task.columns) : 0});
  const Side own{buffers[0], depth, 0, product.chunk};
  for (int64_t begin = 0; begin < std::max<int64_t>(product.k, 1); begin += product.chunk) {
    pack_rows(product, task, begin, std::min(product.chunk, product.k - begin), own);
    multiply(product, task, begin, own, {bands, product.depth, begin, whole_numbers(product.k)}, buffers[1]);
  }
}

// Numbers [begin, begin + count) of a task's rows, and behind the last one those of the terms.
void PanelProduct::pack_rows(const Product& product, const Task& task, int64_t begin, int64_t count,
                             const Side& to) const {
  const Call& call = product.call;
  kernels_.pack_rows({call.a, call.ta == Trans::yes, task.row, task.rows, begin, count}, {to.data, to.depth, to.chunk});
  if (begin + count < product.k) return;
  for (size_t t = 0; t < product.terms.size(); ++t) {
    const Tensor u = call.terms[t].u;
    kernels_.pack_rows({u, false, task.row, task.rows, 0, u.cols},
                       {to.data, to.depth, to.terms + product.terms[t] - product.terms[0]});
  }
}

// The same of its columns.
void PanelProduct::pack_columns(const Product& product, const Task& task, int64_t begin, int64_t count,
                                const Side& to) const {
  const Call& call = product.call;
  kernels_.pack_columns({call.b, call.tb == Trans::no, task.column, task.columns, begin, count},
                        {to.data, to.depth, to.chunk});
  if (begin + count < product.k) return;
  for (size_t t = 0; t < product.terms.size(); ++t) {
    for (int64_t column = 0; column < task.columns; column += kernels_.columns) {
      const int64_t columns = std::min(kernels_.columns, task.columns - column),
                    number = to.terms + product.terms[t] - product.terms[0];
      pack_term(call.terms[t], task.column + column, columns,
                to.data + column * to.depth + number * kernels_.whole_vectors(columns));
    }
  }
}

// A band's columns of a term, zeros where it has none of it.
void PanelProduct::pack_term(const PanelTerm& term, int64_t column, int64_t columns, float* to) const {
  if (!term.meets(column, columns)) return;
  const int64_t begin = std::max(column, term.column), end = std::min(column + columns, term.column + term.columns()),
                r = term.u.cols, depth = whole_numbers(r), width = kernels_.whole_vectors(columns),
                some_width = kernels_.whole_vectors(end - begin);
  const PanelSource source{term.b, term.trans == Trans::no, begin - term.column, end - begin, 0, r};
  if (end - begin == columns) return kernels_.pack_columns(source, {to, depth});
  std::vector<float> some(static_cast<size_t>(depth * kernels_.columns));
  kernels_.pack_columns(source, {some.data(), depth});
  std::fill_n(to, r * width, 0.0f);
  for (int64_t l = 0; l < r; ++l)
    std::copy_n(some.data() + l * some_width, end - begin, to + l * width + begin - column);
}

// Adds the products of a chunk's numbers, of which `begin` is the first, to a task's sums.
void PanelProduct::multiply(const Product& product, const Task& task, int64_t begin, const Side& rows,
                            const Side& columns, float* sums) const {
  const Call& call = product.call;
  const int64_t count = std::min(product.chunk, product.k - begin), sum_rows = kernels_.whole_panels(task.rows);
  const bool last = begin + count >= product.k;
  std::vector<BandPart> parts;
  for (int64_t column = 0; column < task.columns; column += kernels_.columns) {
    const int64_t first = task.column + column, n = std::min(kernels_.columns, task.columns - column),
                  width = kernels_.whole_vectors(n);
    const float* band = columns.data + column * columns.depth;
    parts.assign(1, {rows.data + rows.chunk * kernels_.rows, band + columns.chunk * width, count});
    for (size_t t = 0; last && t < product.terms.size(); ++t) {
      if (!call.terms[t].meets(first, n)) continue;
      const int64_t number = product.terms[t] - product.terms[0];
      parts.push_back({rows.data + (rows.terms + number) * kernels_.rows, band + (columns.terms + number) * width,
                       call.terms[t].u.cols});
    }
    kernels_.multiply({.depth = rows.depth,
                       .parts = parts,
                       .sums = sums + sum_rows * column,
                       .first = begin == 0,
                       .last = last,
                       .alpha = call.alpha,
                       .beta = call.beta,
                       .c = product.c_across ? call.c.rows_from(first, n).columns(task.row, task.rows)
                                             : call.c.rows_from(task.row, task.rows).columns(first, n),
                       .c_across = product.c_across});
  }
}

}  // namespace drover::cpu
