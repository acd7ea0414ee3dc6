// PanelProduct's loops (panel_kernels.h) for one instruction set. To be included once in each of its files, behind the
// `#pragma GCC target` of the set: `Set` is a type of the file's own, so that no function here is shared between sets.
#pragma once
#include "kernels/cpu/attention_common.h"
#include "kernels/cpu/panel_kernels.h"

namespace drover::cpu {

template <class Set, typename T>
void pack_panel(const PanelSource& a, int64_t first, float* panel) {
  constexpr int64_t kRows = Set::kPanelRows;
  const T* from = a.matrix.as<T>() + a.begin;
  for (int64_t l = 0; l < whole_numbers(a.count); l += Set::template kAtOnce<T>) {
    typename Set::V rows[kRows];
#pragma GCC unroll 8
    for (int64_t i = 0; i < kRows; ++i) {
      rows[i] = first + i < a.lines ? Set::at_once(from + (a.first + first + i) * a.matrix.pitch + l, a.count - l)
                                    : Set::all(0);
    }
    Set::template store_panel<T>(rows, panel + l * kRows);
  }
}

template <class Set, typename T>
void pack_rows_of(const PanelSource& a, const Packed& to) {
  constexpr int64_t kRows = Set::kPanelRows;
  float* panels = to.data + to.begin * kRows;
  if (!a.across) {
    for (int64_t i = 0; i < a.lines; i += kRows) pack_panel<Set, T>(a, i, panels + i * to.depth);
    return;
  }
  for (int64_t l = 0; l < a.count; ++l) {
    const T* from = a.matrix.as<T>() + (a.begin + l) * a.matrix.pitch + a.first;
    for (int64_t i = 0; i < a.lines; i += kRows)
      Set::store_panel_column(Set::numbers(from + i, a.lines - i), panels + i * to.depth + l * kRows);
  }
  for (int64_t i = 0; i < a.lines; i += kRows)
    std::fill_n(panels + i * to.depth + a.count * kRows, (whole_numbers(a.count) - a.count) * kRows, 0.0f);
}

// The band of columns from j on, kColumns of them at most, and where its first number lies.
template <class Set>
struct BandOf {
  static constexpr int64_t kColumns = Set::kPanelVectors * Set::kLanes;
  BandOf(const PanelSource& b, const Packed& to, int64_t j)
      : width(std::min(kColumns, (b.lines - j + Set::kLanes - 1) / Set::kLanes * Set::kLanes)),
        numbers(to.data + j * to.depth + to.begin * width) {}
  int64_t width;
  float* numbers;
};

inline constexpr int64_t kRowsAhead = 24;

template <class Set, typename T>
void pack_columns_of(const PanelSource& b, const Packed& to) {
  constexpr int64_t kColumns = BandOf<Set>::kColumns;
  const T* from = b.matrix.as<T>();
  const int64_t pitch = b.matrix.pitch;
  if (b.across) {
    for (int64_t l = 0; l < b.count; ++l) {
      const T* row = from + (b.begin + l) * pitch + b.first;
      // By itself a CPU asks for single lines of far rows too late.
      const int64_t ahead = b.begin + l + kRowsAhead < b.matrix.rows ? b.lines : 0;
      for (int64_t j = 0; j < ahead; j += static_cast<int64_t>(64 / sizeof(T)))
        _mm_prefetch(reinterpret_cast<const char*>(row + kRowsAhead * pitch + j), _MM_HINT_T0);
      for (int64_t j = 0; j < b.lines; j += kColumns) {
        const BandOf<Set> band(b, to, j);
        for (int64_t v = 0; v < band.width; v += Set::kLanes)
          Set::store(band.numbers + l * band.width + v, Set::numbers(row + j + v, b.lines - j - v));
      }
    }
    return;
  }
  for (int64_t j = 0; j < b.lines; j += Set::kLanes) {
    const BandOf<Set> band(b, to, j / kColumns * kColumns);
    for (int64_t l = 0; l < b.count; l += Set::template kAtOnce<T>) {
      typename Set::V block[Set::kLanes];
#pragma GCC unroll 16
      for (int64_t i = 0; i < Set::kLanes; ++i) {
        block[i] =
            j + i < b.lines ? Set::at_once(from + (b.first + j + i) * pitch + b.begin + l, b.count - l) : Set::all(0);
      }
      Set::transpose(block);
#pragma GCC unroll 16
      for (int64_t i = 0; i < Set::template kAtOnce<T>; ++i)
        Set::store(band.numbers + (l + i) * band.width + j % kColumns, Set::template number<T>(block, i));
    }
  }
}

template <class Set, int N, typename T>
void write_rows(const Band& band, const typename Set::V (&sums)[Set::kPanelRows][N], int64_t row) {
  using V = typename Set::V;
  const V alpha = Set::all(band.alpha), beta = Set::all(band.beta);
#pragma GCC unroll 8
  for (int64_t i = 0; i < Set::kPanelRows; ++i) {
    if (row + i >= band.c.rows) return;
    T* to = band.c.as<T>() + (row + i) * band.c.pitch;
#pragma GCC unroll 3
    for (int64_t j = 0; j < N; ++j) {
      const int64_t n = band.c.cols - j * Set::kLanes;
      V v = sums[i][j];
      if (band.alpha != 1) v = Set::multiply(v, alpha);
      if (band.beta != 0) v = Set::multiply_add(Set::numbers(to + j * Set::kLanes, n), beta, v);
      Set::store_numbers(v, n, to + j * Set::kLanes);
    }
  }
}

// The same where c lies across: a few columns, each of a panel's row.
template <class Set, int N, typename T>
void write_columns(const Band& band, const typename Set::V (&sums)[Set::kPanelRows][N], int64_t row) {
  const int64_t rows = std::min<int64_t>(Set::kPanelRows, band.c.cols - row);
  for (int64_t i = 0; i < rows; ++i) {
    float numbers[N * Set::kLanes];
    for (int64_t j = 0; j < N; ++j) Set::store(numbers + j * Set::kLanes, sums[i][j]);
    for (int64_t j = 0; j < band.c.rows; ++j) {
      T* to = band.c.as<T>() + j * band.c.pitch + row + i;
      store_one(to, band.beta != 0 ? band.alpha * numbers[j] + band.beta * load_one(to) : band.alpha * numbers[j]);
    }
  }
}

// The sums stay in registers only where every loop over them is unrolled.
template <class Set, int N>
void multiply_panel(const Band& band, int64_t panel) {
  constexpr int64_t kRows = Set::kPanelRows;
  using V = typename Set::V;
  V sums[kRows][N];
  float* kept = band.sums + panel * kRows * N * Set::kLanes;
#pragma GCC unroll 8
  for (int64_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
    for (int64_t j = 0; j < N; ++j) sums[i][j] = band.first ? Set::all(0) : Set::load(kept + (i * N + j) * Set::kLanes);
  }
  for (const BandPart& part : band.parts) {
    const float *a = part.rows + panel * kRows * band.depth, *b = part.columns;
#pragma GCC unroll 4
    for (int64_t l = 0; l < part.count; ++l, a += kRows, b += N * Set::kLanes) {
      V bs[N];
#pragma GCC unroll 3
      for (int64_t j = 0; j < N; ++j) bs[j] = Set::load(b + j * Set::kLanes);
#pragma GCC unroll 8
      for (int64_t i = 0; i < kRows; ++i) {
        const V as = Set::all(a[i]);
#pragma GCC unroll 3
        for (int64_t j = 0; j < N; ++j) sums[i][j] = Set::multiply_add(as, bs[j], sums[i][j]);
      }
    }
  }
  if (band.last) {
    if (band.c_across && band.c.dtype == DType::bf16) return write_columns<Set, N, bf16>(band, sums, panel * kRows);
    if (band.c_across) return write_columns<Set, N, float>(band, sums, panel * kRows);
    if (band.c.dtype == DType::bf16) return write_rows<Set, N, bf16>(band, sums, panel * kRows);
    return write_rows<Set, N, float>(band, sums, panel * kRows);
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
    for (int64_t j = 0; j < N; ++j) Set::store(kept + (i * N + j) * Set::kLanes, sums[i][j]);
  }
}

template <class Set, int N>
void multiply_panels(const Band& band) {
  for (int64_t panel = 0; panel * Set::kPanelRows < band.rows(); ++panel) multiply_panel<Set, N>(band, panel);
}

template <class Set>
void pack_panel_rows(const PanelSource& a, const Packed& to) {
  if (a.matrix.dtype == DType::bf16) return pack_rows_of<Set, bf16>(a, to);
  pack_rows_of<Set, float>(a, to);
}
template <class Set>
void pack_band_columns(const PanelSource& b, const Packed& to) {
  if (b.matrix.dtype == DType::bf16) return pack_columns_of<Set, bf16>(b, to);
  pack_columns_of<Set, float>(b, to);
}
template <class Set>
void multiply_band(const Band& band) {
  switch ((band.columns() + Set::kLanes - 1) / Set::kLanes) {
    case 1: return multiply_panels<Set, 1>(band);
    case 2: return multiply_panels<Set, 2>(band);
    default: return multiply_panels<Set, Set::kPanelVectors>(band);
  }
}

template <class Set>
constexpr PanelKernels panel_kernels() {
  return {Set::kPanelRows,      Set::kPanelVectors * Set::kLanes, Set::kLanes,       Set::kFewColumns,
          pack_panel_rows<Set>, pack_band_columns<Set>,           multiply_band<Set>};
}

}  // namespace drover::cpu
