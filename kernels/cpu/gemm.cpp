#include "kernels/cpu/gemm.h"

#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>

#include "kernels/base/log.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu {

namespace {

constexpr int64_t kPanelFloats = int64_t{4} << 20;  // of codes that are widened: 16 MiB
// fp32 results on their way to one rounding: all bf16 ones of native products, else those of long sums.
constexpr int64_t kNativeTileFloats = int64_t{4} << 20, kTileFloats = int64_t{1} << 20;
constexpr int64_t kFewRows = 8;      // a weight is read once, and widened in registers
constexpr int64_t kMostRows = 2048;  // whose results are in the tile at once

// (rows, cols) of op(t).
std::pair<int64_t, int64_t> dims(Trans trans, Tensor t) {
  return trans == Trans::no ? std::pair{t.rows, t.cols} : std::pair{t.cols, t.rows};
}

// Rows, or columns, [begin, begin + count) of op(t), as a view of t.
Tensor op_rows(Trans trans, Tensor t, int64_t begin, int64_t count) {
  if (trans == Trans::no) return t.rows_from(begin, count);
  return t.columns(begin, count);
}
Tensor op_columns(Trans trans, Tensor t, int64_t begin, int64_t count) {
  return op_rows(trans == Trans::no ? Trans::yes : Trans::no, t, begin, count);
}

void widen(Tensor from, Tensor to, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t r = 0; r < from.rows; ++r) {
    map_row(
        from.cols, [](Vec v) { return v; }, static_cast<float*>(to.data) + r * to.pitch,
        static_cast<const bf16*>(from.data) + r * from.pitch);
  }
}

// out[i] = x[i,:]·w for R rows of x (n wide); a row's sum runs in the same order whatever R is.
template <int R, typename X, typename W>
void dot_rows(const X* x, int64_t pitch, const W* w, int64_t n, float* out) {
  Vec sums[R][4];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (Vec& s : sums[r]) s = _mm256_setzero_ps();
  }
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
#pragma GCC unroll 8
    for (int part = 0; part < 4; ++part) {
      const Vec weights = load(w + i + part * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        sums[r][part] = _mm256_fmadd_ps(load(x + r * pitch + i + part * kLanes), weights, sums[r][part]);
    }
  }
  for (int r = 0; r < R; ++r) {
    const X* row = x + r * pitch;
    int64_t j = i;
    for (; j + kLanes <= n; j += kLanes) sums[r][0] = _mm256_fmadd_ps(load(row + j), load(w + j), sums[r][0]);
    out[r] = sum(_mm256_add_ps(_mm256_add_ps(sums[r][0], sums[r][1]), _mm256_add_ps(sums[r][2], sums[r][3])));
    for (; j < n; ++j) out[r] += load_one(row + j) * load_one(w + j);
  }
}

}  // namespace

void round_tile(Tensor tile, bool accumulate, Tensor y, int threads) {
  with_type(y, [&](auto* out) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < tile.rows; ++r) {
      const float* from = static_cast<const float*>(tile.data) + r * tile.pitch;
      auto* to = out + r * y.pitch;
      if (accumulate) {
        map_row(
            tile.cols, [](Vec a, Vec b) { return _mm256_add_ps(a, b); }, to, from, to);
      } else {
        map_row(
            tile.cols, [](Vec v) { return v; }, to, from);
      }
    }
  });
}

Gemm::Gemm(int threads) : threads_(threads), panels_(threads), primitives_(threads) {
  native_bf16_ = isa() >= Isa::avx512_bf16 && native_bf16_works();
  tile_floats_ = native_bf16_ ? kNativeTileFloats : kTileFloats;
  tile_ = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(tile_floats_));
}

void Gemm::expect_codes() {
  if (!panel_) panel_ = std::make_unique_for_overwrite<float[]>(kPanelFloats);
}

int64_t Gemm::workspace_bytes(int64_t rows) const {
  const int64_t floats = tile_floats_ + (panel_ ? kPanelFloats : 0);
  const int64_t primitives = native_bf16_ ? primitives_.workspace_bytes(rows) : 0;
  return floats * static_cast<int64_t>(sizeof(float)) + panels_.workspace_bytes(rows) + primitives;
}

// Multiplies a small matrix both ways: a CPU or a library build whose bf16 path fails or disagrees is used with fp32
// panels instead.
bool Gemm::native_bf16_works() {
  try {
    constexpr int64_t m = 5, n = 33, k = 70;
    std::vector<bf16> a(m * k), b(n * k);
    for (size_t i = 0; i < a.size(); ++i) a[i] = bf16(static_cast<float>(static_cast<int>(i * 7 % 13) - 6));
    for (size_t i = 0; i < b.size(); ++i) b[i] = bf16(static_cast<float>(static_cast<int>(i * 5 % 11) - 5));
    std::vector<float> c(m * n, 1.0f);
    primitives_.whole(
        {Trans::no, Trans::yes, 1, matrix(a.data(), m, k), matrix(b.data(), n, k), true, matrix(c.data(), m, n)});
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {  // small integers: exact in fp32 in any order
        float expected = 1;
        for (int64_t l = 0; l < k; ++l)
          expected += static_cast<float>(a[static_cast<size_t>(i * k + l)]) *
                      static_cast<float>(b[static_cast<size_t>(j * k + l)]);
        if (c[static_cast<size_t>(i * n + j)] != expected) {
          log::warn("oneDNN's bf16 product is wrong on this CPU; bf16 is multiplied in fp32 instead");
          return false;
        }
      }
    }
    return true;
  } catch (const dnnl::error& error) {
    log::warn("oneDNN offers no bf16 product on this CPU ({}); bf16 is multiplied in fp32 instead", error.what());
    return false;
  }
}

// By oneDNN, or false where it is not asked. c may have room for a's rows in pieces.
bool Gemm::multiply_native(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
  const bool native = native_bf16_ && a.dtype == DType::bf16 && b.dtype == DType::bf16 && (beta == 0 || beta == 1);
  if (!native || dims(ta, a).second == 0 || c.size() == 0) return false;
  const PrimitiveProduct::Call call{ta, tb, alpha, a, b, beta != 0, c};
  if (ta == Trans::no) {
    c.rows >= in_pieces(a.rows) ? primitives_.by_rows(call) : multiply_without_room(call);
  } else if (tb == Trans::no) {
    primitives_.by_sums(call);
  } else {
    primitives_.whole(call);
  }
  return true;
}

// c has a's rows only: those of a piece that is filled up get their results by way of the tile.
void Gemm::multiply_without_room(const PrimitiveProduct::Call& p) {
  const int64_t rest = p.a.rows % kPieceRows, begin = p.a.rows - rest, columns = tile_floats_ / kPieceRows;
  if (begin > 0) {
    primitives_.by_rows({p.ta, p.tb, p.alpha, p.a.rows_from(0, begin), p.b, p.accumulate, p.c.rows_from(0, begin)});
  }
  for (int64_t j = 0; j < p.c.cols; j += columns) {
    const int64_t nj = std::min(columns, p.c.cols - j);
    const Tensor tile = matrix(tile_.get(), in_pieces(rest), nj);
    primitives_.by_rows({p.ta, p.tb, p.alpha, p.a.rows_from(begin, rest), op_columns(p.tb, p.b, j, nj), false, tile});
    round_tile(tile.rows_from(0, rest), p.accumulate, p.c.rows_from(begin, rest).columns(j, nj), threads_);
  }
}

void Gemm::multiply(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
  if (!multiply_native(ta, tb, alpha, a, b, beta, c))
    panels_({ta, tb, alpha, a, b, beta, c.rows_from(0, dims(ta, a).first)});
}

void Gemm::gemm(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
  if (c.dtype == DType::f32 || !native_bf16_) return multiply(ta, tb, alpha, a, b, beta, c);
  const int64_t columns = std::clamp<int64_t>(c.cols, 1, tile_floats_ / kPieceRows), fit = tile_floats_ / columns,
                rows = in_pieces(c.rows) <= fit ? std::max<int64_t>(c.rows, 1) : fit / kPieceRows * kPieceRows;
  for (int64_t j = 0; j < c.cols; j += columns) {
    const int64_t nj = std::min(columns, c.cols - j);
    for (int64_t i = 0; i < c.rows; i += rows) {
      const int64_t mi = std::min(rows, c.rows - i);
      const Tensor room = matrix(tile_.get(), in_pieces(mi), nj), tile = room.rows_from(0, mi),
                   out = c.rows_from(i, mi).columns(j, nj);
      if (beta != 0) widen(out, tile, threads_);
      multiply(ta, tb, alpha, op_rows(ta, a, i, mi), op_columns(tb, b, j, nj), beta, ta == Trans::no ? room : tile);
      round_tile(tile, false, out, threads_);
    }
  }
}

// Up to eight rows against a weight of any size, which is read once and widened in registers.
void Gemm::few_rows(Tensor x, Tensor w, std::span<const LowRankProduct> low_rank, bool accumulate, Tensor y) {
  require(x.size() <= tile_floats_, "a few rows fit the tile");
  Tensor wide = matrix(tile_.get(), x.rows, x.cols);
  if (x.dtype == DType::f32) {
    wide = x;
  } else {
    widen(x, wide, threads_);
  }
  const float* xs = wide.as<float>();
  with_type(w, [&](auto* ws) {
    with_type(y, [&](auto* ys) {
#pragma omp parallel for num_threads(threads_) schedule(static)
      for (int64_t out = 0; out < w.rows; ++out) {
        float values[kFewRows];
        int64_t t = 0;
        for (; t + 3 <= x.rows; t += 3)
          dot_rows<3>(xs + t * wide.pitch, wide.pitch, ws + out * w.pitch, x.cols, values + t);
        for (; t < x.rows; ++t) dot_rows<1>(xs + t * wide.pitch, wide.pitch, ws + out * w.pitch, x.cols, values + t);
        for (const LowRankProduct& term : low_rank) {
          const int64_t row = out - term.column;
          if (row < 0 || row >= term.b.rows) continue;
          with_type(term.b, [&](auto* bs) {
            with_type(term.u, [&](auto* us) {
              for (int64_t r = 0; r < x.rows; ++r) {
                float added = 0;
                dot_rows<1>(us + r * term.u.pitch, term.u.pitch, bs + row * term.b.pitch, term.b.cols, &added);
                values[r] += added;
              }
            });
          });
        }
        for (int64_t r = 0; r < x.rows; ++r) {
          auto* at = ys + r * y.pitch + out;
          store_one(at, accumulate ? load_one(at) + values[r] : values[r]);
        }
      }
    });
  });
}

// What codes are widened to for a product with x.
DType Gemm::panel_dtype(Tensor x) const { return native_bf16_ ? x.dtype : DType::f32; }

// The weight as it lies, or its codes widened, in the panel that nothing else uses then.
Tensor Gemm::panel(const WeightView& w, Tensor x) {
  if (w.dense()) return w.values();
  expect_codes();
  const Tensor wide = matrix(panel_.get(), w.rows, w.cols, panel_dtype(x));
  require(w.rows * w.cols <= kPanelFloats, "what is widened fits the panel");
#pragma omp parallel for num_threads(threads_) schedule(static)
  for (int64_t r = 0; r < w.rows; ++r) w.read_row(r, x.dtype, wide.rows_from(r, 1));
  return wide;
}

void Gemm::linear(Tensor x, const WeightView& w, std::span<const LowRankProduct> low_rank, bool accumulate, Tensor y) {
  if (x.rows <= kFewRows && w.dense()) return few_rows(x, w.values(), low_rank, accumulate, y);
  if (native_bf16_ && x.dtype == DType::bf16) return linear_native(x, w, low_rank, accumulate, y);
  const int64_t columns =
      w.dense() ? w.rows : std::clamp<int64_t>(kPanelFloats / std::max<int64_t>(w.cols, 1), 1, w.rows);
  std::vector<PanelTerm> terms;
  for (int64_t j = 0; j < w.rows; j += columns) {
    const int64_t nj = std::min(columns, w.rows - j);
    terms.clear();
    for (const LowRankProduct& term : low_rank) {
      const int64_t begin = std::max(j, term.column), end = std::min(j + nj, term.column + term.b.rows);
      if (begin < end)
        terms.push_back({term.u, term.b.rows_from(begin - term.column, end - begin), Trans::yes, begin - j});
    }
    panels_(
        {Trans::no, Trans::yes, 1, x, panel(w.rows_from(j, nj), x), accumulate ? 1.0f : 0.0f, y.columns(j, nj), terms});
  }
}

// Through an fp32 tile that takes the terms, and is rounded once.
void Gemm::linear_native(Tensor x, const WeightView& w, std::span<const LowRankProduct> low_rank, bool accumulate,
                         Tensor y) {
  // Panels of outputs, so that a widened weight panel serves many rows: as many for any number of rows, each of which
  // would need primitives of its own otherwise.
  const int64_t rows = std::min(x.rows, kMostRows);
  const bool direct = y.dtype == DType::f32;
  int64_t columns = direct ? w.rows : std::min(w.rows, tile_floats_ / kMostRows);
  if (!w.dense()) columns = std::clamp<int64_t>(kPanelFloats / std::max<int64_t>(w.cols, 1), 1, columns);
  for (int64_t j = 0; j < w.rows; j += columns) {
    const int64_t nj = std::min(columns, w.rows - j);
    const Tensor wj = panel(w.rows_from(j, nj), x);
    for (int64_t i = 0; i < x.rows; i += rows) {
      const int64_t mi = std::min(rows, x.rows - i);
      const Tensor xi = x.rows_from(i, mi), yi = y.rows_from(i, mi).columns(j, nj);
      const Tensor tile = direct ? yi : matrix(tile_.get(), in_pieces(mi), nj);
      multiply(Trans::no, Trans::yes, 1, xi, wj, direct && accumulate ? 1.0f : 0.0f, tile);
      for (const LowRankProduct& term : low_rank) {
        const int64_t begin = std::max(j, term.column), end = std::min(j + nj, term.column + term.b.rows);
        if (begin >= end) continue;
        multiply(Trans::no, Trans::yes, 1, term.u.rows_from(i, mi), term.b.rows_from(begin - term.column, end - begin),
                 1, tile.columns(begin - j, end - begin));
      }
      if (!direct) round_tile(tile.rows_from(0, mi), accumulate, yi, threads_);
    }
  }
}

// dx (f32) = dy·w, of codes a panel of rows after the other.
void Gemm::multiply_dx(Tensor dy, const WeightView& w, Tensor dx) {
  const int64_t rows = w.dense() ? w.rows : std::clamp<int64_t>(kPanelFloats / w.cols, 1, w.rows);
  for (int64_t l = 0; l < w.rows; l += rows) {
    const int64_t count = std::min(rows, w.rows - l);
    multiply(Trans::no, Trans::no, 1, dy.columns(l, count), panel(w.rows_from(l, count), dy), l == 0 ? 0.0f : 1.0f, dx);
  }
}

void Gemm::linear_dx(Tensor dy, const WeightView& w, Tensor v, Tensor a, Tensor dx) {
  const bool native = native_bf16_ && dy.dtype == DType::bf16;
  if (!native && dy.cols <= PanelProduct::kLongestSum && (w.dense() || w.rows * w.cols <= kPanelFloats)) {
    const PanelTerm term{v, a, Trans::no, 0};
    return panels_({Trans::no, Trans::no, 1, dy, panel(w, dy), 0, dx, {&term, v.empty() ? 0u : 1u}});
  }
  const int64_t rows = std::min(dy.rows, kMostRows);
  int64_t columns = std::min(w.cols, tile_floats_ / (native ? kMostRows : std::max<int64_t>(in_pieces(rows), 1)));
  if (!w.dense() && columns < w.cols) columns = columns / kNf4Block * kNf4Block;  // codes are read in whole blocks
  const bool direct = dx.dtype == DType::f32;
  for (int64_t j = 0; j < w.cols; j += columns) {
    const int64_t nj = std::min(columns, w.cols - j);
    for (int64_t i = 0; i < dy.rows; i += rows) {
      const int64_t mi = std::min(rows, dy.rows - i);
      const Tensor out = dx.rows_from(i, mi).columns(j, nj);
      const Tensor tile = direct ? out : matrix(tile_.get(), in_pieces(mi), nj);
      multiply_dx(dy.rows_from(i, mi), w.columns(j, nj), tile);
      if (!v.empty()) multiply(Trans::no, Trans::no, 1, v.rows_from(i, mi), a.columns(j, nj), 1, tile);
      if (!direct) round_tile(tile.rows_from(0, mi), false, out, threads_);
    }
  }
}

}  // namespace drover::cpu
