#include "kernels/cpu/row_product.h"

#include <omp.h>

#include <algorithm>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/row_copies.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu {

namespace {

constexpr int64_t kPanel = 64;                     // outputs whose weights are copied for many rows
constexpr int64_t kRowsAtOnce = 512;               // whose sums of a panel lie in a core's cache
constexpr int64_t kFewRows = 8;                    // up to so many, weights are read where they lie
constexpr int64_t kGroup = 4;                      // a thread's outputs begin at a multiple of it
constexpr int64_t kRowsBytes = int64_t{16} << 20;  // of copied rows of x
constexpr int64_t kSumsBytes = kRowsAtOnce * kPanel * 4;
constexpr int64_t kFewSumsBytes = kStreams * kFewRows * kPanel * 4;  // of few rows, behind which lie their copies of u
constexpr int64_t kPanelBytes = kPanel * (kDepth<float> * 4 + kLineBytes);
constexpr int64_t kPackedBytes = kPanel * kDepth<float> * 4;
constexpr int64_t kThreadBytes = kSumsBytes + kPanelBytes + kPackedBytes;
constexpr int64_t kManyRows = 24;  // from which a panel of weights is worth packing

int64_t groups_of(int64_t outputs) { return (outputs + kGroup - 1) / kGroup; }

template <typename WRows>
WRows coded_rows(const WeightView& w) {
  if constexpr (std::is_same_v<WRows, Fp8Rows<Scales::any>>) return w.fp8_rows<Scales::any>();
  if constexpr (std::is_same_v<WRows, Fp8Rows<Scales::rounded>>) return w.fp8_rows<Scales::rounded>();
  if constexpr (std::is_same_v<WRows, Fp8Rows<Scales::powers>>) return w.fp8_rows<Scales::powers>();
  if constexpr (std::is_same_v<WRows, Nf4Rows<true>>) return w.nf4_rows<true>();
  if constexpr (std::is_same_v<WRows, Nf4Rows<false>>) return w.nf4_rows<false>();
}

// Calls f with the rows of codes as their type.
template <typename F>
void with_coded_rows(const WeightView& w, F&& f) {
  if (w.is_nf4()) return w.narrow() ? f(w.nf4_rows<true>()) : f(w.nf4_rows<false>());
  if (w.scales_are_powers()) return f(w.fp8_rows<Scales::powers>());
  w.narrow() ? f(w.fp8_rows<Scales::rounded>()) : f(w.fp8_rows<Scales::any>());
}

template <typename WRows>
void add_streamed_512(const Streams<float, WRows>& p) {
  avx512::add_streamed(p);
}
template <Scales scales>
void add_streamed_512(const Streams<float, Fp8Rows<scales>>& p) {
  has_gfni() ? avx512_gfni::add_streamed(p) : avx512::add_streamed(p);
}

template <typename T>
Rows<T> rows_of(Tensor t) {
  return {static_cast<const T*>(t.data), t.pitch};
}

// sums (T, outputs of w) += x·wᵀ.
template <typename X, typename W>
RowsTimesRows<X, W> product_of(Tensor x, Tensor w, float* sums) {
  return {x.rows, w.rows, x.cols, rows_of<X>(x), rows_of<W>(w), sums, kPanel};
}

void clear(float* sums, int64_t rows, int64_t width) {
  for (int64_t t = 0; t < rows; ++t) std::fill_n(sums + t * kPanel, width, 0.0f);
}

void finish(Tensor sums, float alpha, bool accumulate, Tensor y) {
  with_type(y, [&](auto* out) {
    for (int64_t t = 0; t < y.rows; ++t) {
      const float* from = sums.as<float>() + t * sums.pitch;
      auto* to = out + t * y.pitch;
      if (accumulate) {
        map_row(
            y.cols, [](Vec a, Vec b) { return _mm256_add_ps(a, b); }, to, from, to);
      } else {
        map_row(
            y.cols, [a = _mm256_set1_ps(alpha)](Vec v) { return _mm256_mul_ps(v, a); }, to, from);
      }
    }
  });
}

// The part of [row, row + rows) that lies in [begin, begin + count): where it begins in each, and how long it is.
struct Overlap {
  int64_t in_part, in_rows, count;
};
Overlap overlap(int64_t row, int64_t rows, int64_t begin, int64_t count) {
  const int64_t from = std::max(row, begin), to = std::min(row + rows, begin + count);
  return {from - row, from - begin, to - from};
}

}  // namespace

RowProduct::RowProduct(int threads)
    : threads_(threads), isa_(isa()), rows_(lines_of(kRowsBytes)), scratch_(lines_of(threads * kThreadBytes)) {}

// In which x is multiplied by w.
DType RowProduct::read_dtype(Tensor x, const WeightView& w) const {
  const bool narrow = x.dtype == DType::bf16 && w.dense() && w.values().dtype == DType::bf16;
  return isa_ >= Isa::avx512_bf16 && narrow ? DType::bf16 : DType::f32;
}

// x in the dtype in which it is multiplied, and for many rows at a pitch that suits the cache: a copy in `free`, unless
// it lies so already.
Tensor RowProduct::as_read(Tensor x, const WeightView& w, std::byte*& free) const {
  const DType dtype = read_dtype(x, w);
  const bool few = x.rows <= kFewRows;
  if (few && dtype == x.dtype) return x;
  Tensor copied = matrix(free, x.rows, x.cols, dtype);
  copied.pitch = copy_pitch(x.cols, dtype);
  free += x.rows * copied.pitch * size_of(dtype);
  if (few) {  // a thread's start would cost more
    copy_rows(x, copied);
    return copied;
  }
#pragma omp parallel for num_threads(threads_) schedule(static)
  for (int64_t t = 0; t < x.rows; ++t) copy_rows(x.rows_from(t, 1), copied.rows_from(t, 1));
  return copied;
}

// Copies x in the order in which the columns of w are widened; null: as they are.
RowProduct::CopyInOrder RowProduct::order_of(const WeightView& w) const {
  if (w.dense() || !w.streams()) return nullptr;
  if (isa_ == Isa::avx2) return w.is_fp8() ? nullptr : copy_in_order<kNf4Order256>;
  if (w.is_nf4()) return copy_in_order<kNf4Order512>;
  return w.scales_are_powers() ? copy_in_order<kFp8PowersOrder512> : copy_in_order<kFp8Order512>;
}

// A copy in `free` of x, which is f32, in this order.
Tensor RowProduct::in_order(Tensor x, CopyInOrder copy, std::byte*& free) const {
  Tensor copied = matrix(free, x.rows, x.cols, x.dtype);
  copied.pitch = copy_pitch(x.cols, x.dtype);
  free += copied.rows * copied.pitch * size_of(copied.dtype);
#pragma omp parallel for num_threads(threads_) schedule(static) if (x.rows > kFewRows)
  for (int64_t t = 0; t < x.rows; ++t) copy(x.as<float>() + t * x.pitch, x.cols, copied.as<float>() + t * copied.pitch);
  return copied;
}

void RowProduct::linear(const Linear& p) {
  const auto otherwise = [&](const LowRankInput& i) { return read_dtype(p.x, i.a) != read_dtype(p.x, p.w); };
  const int64_t copies = 1 + (order_of(p.w) != nullptr) + std::ranges::any_of(p.inputs, otherwise);
  int64_t row_bytes = copies * copy_pitch(p.x.cols, DType::f32) * 4;
  for (const LowRankProduct& term : p.low_rank) row_bytes += copy_pitch(term.u.cols, DType::f32) * 4;
  require(row_bytes <= kRowsBytes, "a row of a product fits the scratch");
  const int64_t at_once = std::min(kRowsBytes / row_bytes, kRowsAtOnce);
  for (int64_t t = 0; t < p.x.rows; t += at_once) some_rows(p, t, std::min(at_once, p.x.rows - t));
}

void RowProduct::some_rows(const Linear& p, int64_t begin, int64_t count) {
  std::byte* free = rows_.get();
  const Tensor x = p.x.rows_from(begin, count), rows = as_read(x, p.w, free);
  const bool once = at_once(p, rows);
  std::vector<Call> inputs;
  for (const LowRankInput& input : p.inputs) {
    const auto [in_input, at, n] = overlap(input.row, input.u.rows, begin, count);
    if (n <= 0) continue;
    const Tensor u = input.u.rows_from(in_input, n);
    const WeightView a(input.a);
    if (once) {
      inputs.push_back({input.scale, rows.rows_from(at, n), a, {}, false, u});
      continue;
    }
    std::byte* own = free;
    const bool read = read_dtype(x, a) == rows.dtype;
    panels({}, {input.scale, read ? rows.rows_from(at, n) : as_read(x.rows_from(at, n), a, own), a, {}, false, u});
  }
  std::vector<LowRankProduct> terms;
  for (const LowRankProduct& term : p.low_rank) {
    const auto [in_term, at, n] = overlap(term.row, term.u.rows, begin, count);
    if (n <= 0) continue;
    const Tensor u = term.u.rows_from(in_term, n);
    terms.push_back({once ? u : as_read(u, term.b, free), term.b, term.column, at});
  }
  const CopyInOrder order = order_of(p.w);
  panels(inputs, {1, order == nullptr ? rows : in_order(rows, order, free), p.w, terms, p.accumulate,
                  p.y.rows_from(begin, count)});
}

// Whether one start of the threads does for inputs and outputs: the inputs multiply x as it was read, and the terms'
// u are multiplied as they lie, or are few enough for each thread to copy them.
bool RowProduct::at_once(const Linear& p, Tensor rows) const {
  const auto as_it_is = [&](const LowRankInput& i) { return read_dtype(p.x, i.a) == rows.dtype; };
  int64_t copied = 0;
  for (const LowRankProduct& term : p.low_rank) {
    const DType read = read_dtype(term.u, term.b);
    if (read != term.u.dtype) copied += term.u.rows * copy_pitch(term.u.cols, read) * size_of(read);
  }
  return std::ranges::all_of(p.inputs, as_it_is) && copied <= (rows.rows <= kFewRows ? kSumsBytes - kFewSumsBytes : 0);
}

void RowProduct::panels(std::span<const Call> inputs, const Call& call) const {
#pragma omp parallel num_threads(threads_)
  {
    if (!inputs.empty()) {
      inputs_of_thread(inputs);
#pragma omp barrier
    }
    outputs_of_thread(call);
  }
}

// This thread's share of all inputs' outputs, laid end to end.
void RowProduct::inputs_of_thread(std::span<const Call> inputs) const {
  const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
  int64_t groups = 0;
  for (const Call& input : inputs) groups += groups_of(input.w.rows);
  const int64_t first = groups * thread / threads, last = groups * (thread + 1) / threads;
  std::byte* scratch = scratch_.get() + thread * kThreadBytes;
  int64_t at = 0;  // the group that the input begins with
  for (const Call& input : inputs) {
    const int64_t own = groups_of(input.w.rows), from = std::max(first, at), to = std::min(last, at + own);
    if (from < to) outputs(input, (from - at) * kGroup, std::min((to - at) * kGroup, input.w.rows), scratch);
    at += own;
  }
}

void RowProduct::outputs_of_thread(const Call& call) const {
  const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads(), groups = groups_of(call.w.rows);
  const int64_t begin = groups * thread / threads * kGroup,
                end = std::min(groups * (thread + 1) / threads * kGroup, call.w.rows);
  std::byte* scratch = scratch_.get() + thread * kThreadBytes;
  if (call.low_rank.empty() || call.x.rows > kFewRows) return outputs(call, begin, end, scratch);
  Call own = call;
  const std::vector<LowRankProduct> terms = terms_of_thread(call, scratch + kFewSumsBytes);
  own.low_rank = terms;
  outputs(own, begin, end, scratch);
}

// The terms of few rows, with copies in `free` of the u that are not multiplied as they lie.
std::vector<LowRankProduct> RowProduct::terms_of_thread(const Call& call, std::byte* free) const {
  std::vector<LowRankProduct> terms(call.low_rank.begin(), call.low_rank.end());
  for (LowRankProduct& term : terms) term.u = as_read(term.u, term.b, free);
  return terms;
}

void RowProduct::outputs(const Call& call, int64_t begin, int64_t end, std::byte* scratch) const {
  const bool as_it_lies = call.x.rows <= kFewRows && call.w.streams();
  as_it_lies ? streamed(call, begin, end, scratch) : copied(call, begin, end, scratch);
}

// The outputs [begin, end) for few rows, the weights read where they lie, in streams that begin far from each other.
void RowProduct::streamed(const Call& call, int64_t begin, int64_t end, std::byte* scratch) const {
  const int64_t length = (end - begin + kStreams - 1) / kStreams;  // outputs of a stream
  for (int64_t at = 0; at < length; at += kPanel) {
    std::array<Stream, kStreams> streams;
    for (int64_t s = 0; s < kStreams; ++s) {
      const int64_t first = std::min(begin + s * length + at, end);
      const int64_t last = std::min({first + kPanel, begin + (s + 1) * length, end});
      float* sums = reinterpret_cast<float*>(scratch) + s * kFewRows * kPanel;
      streams[static_cast<size_t>(s)] = {call.w.rows_from(first, last - first), sums};
      clear(sums, call.x.rows, last - first);
      ask_for_terms(call, first, last - first);
    }
    add_streamed(call.x, streams);
    for (int64_t s = 0; s < kStreams; ++s) {
      const auto& [w, sums] = streams[static_cast<size_t>(s)];
      complete(call, std::min(begin + s * length + at, end), w.rows, sums, nullptr);
    }
  }
}

// The same for many rows: a block of the weights is copied to where every row finds it in the cache.
void RowProduct::copied(const Call& call, int64_t begin, int64_t end, std::byte* scratch) const {
  float* sums = reinterpret_cast<float*>(scratch);
  std::byte* copy = scratch + kSumsBytes;
  for (int64_t at = begin; at < end; at += kPanel) {
    const WeightView w = call.w.rows_from(at, std::min(kPanel, end - at));
    clear(sums, call.x.rows, w.rows);
    add_copied(call.x, w, sums, copy);
    complete(call, at, w.rows, sums, copy);
  }
}

// The terms' weights for these outputs come from memory while the frozen ones are multiplied.
void RowProduct::ask_for_terms(const Call& call, int64_t begin, int64_t width) const {
  for (const LowRankProduct& term : call.low_rank) {
    const auto [in_term, at, n] = overlap(term.column, term.b.rows, begin, width);
    if (n <= 0 || term.b.cols > kThin) continue;
    const Tensor b = term.b.rows_from(in_term, n);
    const auto* first = static_cast<const char*>(b.data);
    const int64_t bytes = ((n - 1) * b.pitch + b.cols) * size_of(b.dtype);
    for (int64_t line = 0; line < bytes; line += kLineBytes) _mm_prefetch(first + line, _MM_HINT_T0);
  }
}

// Adds the terms to the sums of the outputs [begin, begin + width) and rounds them to y. `copy` is null for few rows.
void RowProduct::complete(const Call& call, int64_t begin, int64_t width, float* sums, std::byte* copy) const {
  for (const LowRankProduct& term : call.low_rank) {
    const int64_t from = std::max(begin, term.column), to = std::min(begin + width, term.column + term.b.rows);
    if (from >= to) continue;
    const Tensor b = term.b.rows_from(from - term.column, to - from);
    float* at = sums + term.row * kPanel + from - begin;
    if (b.cols <= kThin) {
      add_thin(term.u, b, at);
    } else {
      copy == nullptr ? add_streamed(term.u, in_streams(b, at)) : add_copied(term.u, WeightView(b), at, copy);
    }
  }
  finish(matrix(sums, call.x.rows, kPanel, DType::f32), call.alpha, call.accumulate, call.y.columns(begin, width));
}

// sums (T, outputs of w) += x·wᵀ, of at most kThin columns.
void RowProduct::add_thin(Tensor x, Tensor w, float* sums) const {
  if (x.dtype == DType::bf16) return avx512_bf16::add_thin(product_of<bf16, bf16>(x, w, sums));
  with_type(w, [&](auto* typed) {
    using W = std::remove_pointer_t<decltype(typed)>;
    const auto product = product_of<float, W>(x, w, sums);
    if constexpr (std::is_same_v<W, bf16>) {
      if (isa_ != Isa::avx2) return avx512::add_thin(product);
    }
    avx2::add_thin(product);
  });
}

// A panel whose sums lie next to each other.
std::array<RowProduct::Stream, kStreams> RowProduct::in_streams(const WeightView& w, float* sums) {
  const int64_t length = (w.rows + kStreams - 1) / kStreams;
  std::array<Stream, kStreams> streams;
  for (int64_t s = 0; s < kStreams; ++s) {
    const int64_t first = std::min(s * length, w.rows);
    streams[static_cast<size_t>(s)] = {w.rows_from(first, std::min(length, w.rows - first)), sums + first};
  }
  return streams;
}

// sums (T, outputs of w) += x·wᵀ of each stream; the first has the most outputs.
void RowProduct::add_streamed(Tensor x, const std::array<Stream, kStreams>& streams) const {
  const auto add = [&]<typename X, typename F>(Rows<X> xs, const F& rows_of_stream) {
    using WRows = decltype(rows_of_stream(streams[0].w));
    Streams<X, WRows> p;
    for (size_t s = 0; s < streams.size(); ++s) {
      const auto& [w, sums] = streams[s];
      p[s] = {x.rows, w.rows, x.cols, xs, rows_of_stream(w), sums, kPanel};
    }
    if constexpr (std::is_same_v<X, bf16>) {
      avx512_bf16::add_streamed(p);
    } else {
      isa_ == Isa::avx2 ? avx2::add_streamed(p) : add_streamed_512(p);
    }
  };
  const auto dense = [](auto* typed) {
    return [](const WeightView& w) { return rows_of<std::remove_pointer_t<decltype(typed)>>(w.values()); };
  };
  const WeightView& first = streams[0].w;
  if (x.dtype == DType::bf16) return add(rows_of<bf16>(x), dense(static_cast<bf16*>(nullptr)));
  const auto xs = rows_of<float>(x);
  if (first.dense()) return with_type(first.values(), [&](auto* typed) { add(xs, dense(typed)); });
  with_coded_rows(first, [&]<typename WRows>(const WRows&) { add(xs, coded_rows<WRows>); });
}

void RowProduct::add_copied(Tensor x, const WeightView& w, float* sums, std::byte* copy) const {
  const int64_t depth = x.dtype == DType::bf16 ? kDepth<bf16> : kDepth<float>;
  const bool packs = isa_ == Isa::avx2 && x.rows >= kManyRows;
  auto* packed = reinterpret_cast<float*>(copy + kPanelBytes);
  for (int64_t i = 0; i < x.cols; i += depth) {
    const int64_t k = std::min(depth, x.cols - i);
    const Tensor xs = x.columns(i, k);
    if (packs && w.dense()) {
      const Tensor ws = w.columns(i, k).values();
      with_type(ws, [&](auto* typed) {
        avx2::add_packed(product_of<float, std::remove_pointer_t<decltype(typed)>>(xs, ws, sums), packed);
      });
      continue;
    }
    const Tensor block{copy, w.rows, k, copy_pitch(k, x.dtype), x.dtype};
    copy_block(w.columns(i, k), block);
    if (x.dtype == DType::bf16) {
      avx512_bf16::add_cached(product_of<bf16, bf16>(xs, block, sums));
    } else if (packs) {
      avx2::add_packed(product_of<float, float>(xs, block, sums), packed);
    } else {
      const auto add = isa_ == Isa::avx2 ? avx2::add_cached : avx512::add_cached;
      add(product_of<float, float>(xs, block, sums));
    }
  }
}

// The values of a few columns of w, in the order of x.
void RowProduct::copy_block(const WeightView& w, Tensor to) const {
  if (w.dense() || !w.streams()) return w.read(DType::f32, to);
  with_coded_rows(w, [&]<typename WRows>(const WRows& rows) {
    const auto widen = isa_ == Isa::avx2 ? avx2::widen<WRows> : avx512::widen<WRows>;
    widen(rows, w.rows, w.cols, to.as<float>(), to.pitch);
  });
}

}  // namespace drover::cpu
