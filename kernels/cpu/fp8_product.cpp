#include "kernels/cpu/fp8_product.h"

#include <algorithm>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/dequantise.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu {

namespace {

__m256i bits_of(Vec v) { return _mm256_castps_si256(v); }

Vec magnitude(Vec v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

// The value of fp8_code(v, 1): its cases, eight at a time.
Vec through_e4m3(Vec v) {
  const Vec sign = _mm256_and_ps(v, _mm256_set1_ps(-0.0f)), most = _mm256_set1_ps(kLargestE4m3);
  const Vec size = _mm256_min_ps(most, magnitude(v));  // of a NaN: itself, the second
  const Vec shift = _mm256_set1_ps(0x1p14f), small = _mm256_sub_ps(_mm256_add_ps(size, shift), shift);
  const __m256i bits = bits_of(size), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 20), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7ffff)), odd);
  const Vec large = _mm256_castsi256_ps(_mm256_and_si256(up, _mm256_set1_epi32(~0xfffff)));
  const Vec rounded = _mm256_blendv_ps(large, small, _mm256_cmp_ps(size, _mm256_set1_ps(0x1p-6f), _CMP_LT_OQ));
  const Vec nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
  return _mm256_blendv_ps(_mm256_or_ps(rounded, sign), v, nan);
}

// The largest magnitude's bits.
uint32_t largest_of(const float* values, int64_t n) {
  __m256i largest = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) largest = _mm256_max_epu32(largest, bits_of(magnitude(load(values + i))));
  alignas(32) uint32_t lanes[kLanes];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), largest);
  uint32_t all = *std::max_element(lanes, lanes + kLanes);
  for (; i < n; ++i) all = std::max(all, magnitude_bits(values[i]));
  return all;
}

// values [0, n) of one scale to codes, as numbers.
template <typename To>
float quantise_run(const float* values, int64_t n, float bound, To* codes) {
  const float scale = fp8_scale(largest_of(values, n), bound);
  const Vec by = _mm256_set1_ps(scale);
  map_row(
      n, [&](Vec v) { return through_e4m3(_mm256_div_ps(v, by)); }, codes, values);
  return scale;
}

}  // namespace

void Fp8Product::expect() {
  if (expected_) return;
  expected_ = true;
  codes_ = std::make_unique_for_overwrite<float[]>(kCodes);
  panel_ = std::make_unique_for_overwrite<float[]>(kPanel);
  scales_ = std::make_unique_for_overwrite<float[]>(kScales / 2);
  panel_scales_ = std::make_unique_for_overwrite<float[]>(kScales / 2);
  tile_ = std::make_unique_for_overwrite<float[]>(kTileRows * kTileColumns);
  part_ = std::make_unique_for_overwrite<float[]>(kTileRows * kTileColumns);
}

int64_t Fp8Product::rows_at_once(int64_t cols, size_t runs) const {
  const int64_t most = std::min(kCodes / cols, kScales / 2 / static_cast<int64_t>(runs));
  require(most > 0, "a row of codes fits its memory");
  return most;
}

int64_t Fp8Product::columns_at_once(int64_t cols, size_t runs) const {
  const int64_t most = std::min({kTileColumns, kPanel / cols, kScales / 2 / static_cast<int64_t>(runs)});
  require(most > 0, "codes of a column fit their memory");
  return most;
}

Fp8Product::Coded Fp8Product::quantise(Tensor x, Tensor times, std::span<const SumRun> runs, float bound) {
  const Coded to{matrix(codes_.get(), x.rows, x.cols, dtype()),
                 matrix(scales_.get(), x.rows, static_cast<int64_t>(runs.size()))};
#pragma omp parallel num_threads(threads_)
  {
    std::vector<float> row(static_cast<size_t>(x.cols));
#pragma omp for schedule(static)
    for (int64_t t = 0; t < x.rows; ++t) {
      with_type(x, [&](auto* from) {
        const auto* values = from + t * x.pitch;
        const auto same = [](Vec v) { return v; };
        const auto weighted = [](Vec v, Vec w) { return _mm256_mul_ps(v, w); };
        times.empty() ? map_row(x.cols, same, row.data(), values)
                      : map_row(x.cols, weighted, row.data(), values, times.as<float>());
      });
      with_type(to.codes, [&](auto* codes) {
        for (size_t g = 0; g < runs.size(); ++g) {
          to.scales.as<float>()[t * to.scales.pitch + static_cast<int64_t>(g)] = quantise_run(
              row.data() + runs[g].begin, runs[g].count, bound, codes + t * to.codes.pitch + runs[g].begin);
        }
      });
    }
  }
  return to;
}

// Rows of w, whose columns are summed over.
Fp8Product::Panel Fp8Product::rows_of(const Fp8Weight& w, int64_t begin, int64_t count, std::span<const SumRun> runs) {
  const Panel to{Trans::yes, matrix(panel_.get(), count, w.in(), dtype()),
                 matrix(panel_scales_.get(), static_cast<int64_t>(runs.size()), count)};
  const float one = 1;
#pragma omp parallel for num_threads(threads_) schedule(static)
  for (int64_t r = 0; r < count; ++r) {
    dequantise_fp8(w.codes.as<uint8_t>() + (begin + r) * w.codes.pitch, {&one, 0, 0}, {}, w.in(), dtype(),
                   to.codes.rows_from(r, 1).data);
    const float* scales = w.scales.as<float>() + w.scale_row.as<int32_t>()[begin + r] * w.scales.pitch;
    for (int64_t g = 0; g < to.scales.rows; ++g) to.scales.as<float>()[g * count + r] = scales[g];
  }
  return to;
}

// Columns of w, whose rows are summed over. What scales rows one by one is in dy already.
Fp8Product::Panel Fp8Product::columns_of(const Fp8Weight& w, int64_t begin, int64_t count,
                                         std::span<const SumRun> runs) {
  const Panel to{Trans::no, matrix(panel_.get(), w.out(), count, dtype()),
                 matrix(panel_scales_.get(), static_cast<int64_t>(runs.size()), count)};
  const float one = 1;
#pragma omp parallel for num_threads(threads_) schedule(static)
  for (int64_t r = 0; r < w.out(); ++r) {
    dequantise_fp8(w.codes.as<uint8_t>() + r * w.codes.pitch + begin, {&one, 0, 0}, {}, count, dtype(),
                   to.codes.rows_from(r, 1).data);
  }
  for (int64_t g = 0; g < to.scales.rows; ++g) {
    float* scales = to.scales.as<float>() + g * count;
    const float* from = w.scales.as<float>() + g * w.scales.pitch;
    for (int64_t i = 0; i < count; ++i) scales[i] = w.blocks.columns == 0 ? 1 : from[(begin + i) / w.blocks.columns];
  }
  return to;
}

// tile = Σ over runs of x's scale · w's scale · the product of their codes
void Fp8Product::multiply(const Coded& x, const Panel& w, std::span<const SumRun> runs, Tensor tile) {
  const Tensor part = matrix(part_.get(), tile.rows, tile.cols);
  for (size_t g = 0; g < runs.size(); ++g) {
    const auto [begin, count] = runs[g];
    const Tensor codes = w.trans == Trans::yes ? w.codes.columns(begin, count) : w.codes.rows_from(begin, count);
    gemm_.gemm(Trans::no, w.trans, 1, x.codes.columns(begin, count), codes, 0, part);
    const float* scales = w.scales.as<float>() + static_cast<int64_t>(g) * w.scales.pitch;
#pragma omp parallel for num_threads(threads_) schedule(static)
    for (int64_t t = 0; t < tile.rows; ++t) {
      const Vec mine = _mm256_set1_ps(x.scales.as<float>()[t * x.scales.pitch + static_cast<int64_t>(g)]);
      float* sum = tile.as<float>() + t * tile.pitch;
      const float* more = part.as<float>() + t * part.pitch;
      const auto first = [&](Vec s, Vec p) { return _mm256_mul_ps(_mm256_mul_ps(mine, s), p); };
      const auto next = [&](Vec s, Vec p, Vec old) { return _mm256_fmadd_ps(_mm256_mul_ps(mine, s), p, old); };
      g == 0 ? map_row(tile.cols, first, sum, scales, more) : map_row(tile.cols, next, sum, scales, more, sum);
    }
  }
}

void Fp8Product::linear(Tensor x, const Fp8Weight& w, std::span<const LowRankProduct> low_rank, bool accumulate,
                        Tensor y) {
  const std::vector<SumRun> runs = input_runs(w);
  const int64_t rows = rows_at_once(w.in(), runs.size()), columns = columns_at_once(w.in(), runs.size());
  for (int64_t row = 0; row < x.rows; row += rows) {
    const int64_t some = std::min(rows, x.rows - row);
    const Coded coded = quantise(x.rows_from(row, some), {}, runs, w.largest_input);
    for (int64_t j = 0; j < w.out(); j += columns) {
      const int64_t nj = std::min(columns, w.out() - j);
      const Panel panel = rows_of(w, j, nj, runs);
      for (int64_t i = 0; i < some; i += kTileRows) {
        const int64_t mi = std::min(kTileRows, some - i);
        const Tensor sum = tile(mi, nj);
        multiply(coded.rows_from(i, mi), panel, runs, sum);
        for (const LowRankProduct& term : low_rank) {
          const int64_t begin = std::max(j, term.column), end = std::min(j + nj, term.column + term.b.rows);
          if (begin >= end) continue;
          gemm_.gemm(Trans::no, Trans::yes, 1, term.u.rows_from(row + i, mi),
                     term.b.rows_from(begin - term.column, end - begin), 1, sum.columns(begin - j, end - begin));
        }
        round_tile(sum, accumulate, y.rows_from(row + i, mi).columns(j, nj), threads_);
      }
    }
  }
}

void Fp8Product::linear_dx(Tensor dy, const Fp8Weight& w, Tensor v, Tensor a, Tensor dx) {
  const std::vector<SumRun> runs = output_runs(w);
  const int64_t rows = rows_at_once(w.out(), runs.size()), columns = columns_at_once(w.out(), runs.size());
  std::vector<float> of_rows;  // scales that stand inside the sum
  if (w.blocks.columns == 0) {
    for (int64_t o = 0; o < w.out(); ++o) of_rows.push_back(w.scales.as<float>()[w.scale_row.as<int32_t>()[o]]);
  }
  const Tensor times = of_rows.empty() ? Tensor{} : matrix(of_rows.data(), 1, w.out());
  for (int64_t row = 0; row < dy.rows; row += rows) {
    const int64_t some = std::min(rows, dy.rows - row);
    const Coded coded = quantise(dy.rows_from(row, some), times, runs, 0);
    for (int64_t j = 0; j < w.in(); j += columns) {
      const int64_t nj = std::min(columns, w.in() - j);
      const Panel panel = columns_of(w, j, nj, runs);
      for (int64_t i = 0; i < some; i += kTileRows) {
        const int64_t mi = std::min(kTileRows, some - i);
        const Tensor sum = tile(mi, nj);
        multiply(coded.rows_from(i, mi), panel, runs, sum);
        if (!v.empty()) gemm_.gemm(Trans::no, Trans::no, 1, v.rows_from(row + i, mi), a.columns(j, nj), 1, sum);
        round_tile(sum, false, dx.rows_from(row + i, mi).columns(j, nj), threads_);
      }
    }
  }
}

}  // namespace drover::cpu
