// Moving and pointwise ops. Each row is one thread's; within a row every value is computed the same way wherever it
// stands.
#include <cstring>
#include <utility>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu {

namespace {

template <typename T>
T* row(Tensor t, T* data, int64_t r) {
  return data + r * t.pitch;
}

bool same_shape(Tensor a, Tensor b) { return a.rows == b.rows && a.cols == b.cols; }

// f(const from*, to*) for one row, for all rows. A long vector (one column, contiguous) is cut into pieces that count
// as rows.
template <typename F>
void for_rows(int64_t rows, int threads, F&& f) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows > 1)
  for (int64_t r = 0; r < rows; ++r) f(r);
}

// A contiguous tensor may be walked as rows of any length: pieces of 4096 elements and a shorter last one.
struct Walk {
  int64_t rows, cols, last, pitch_x, pitch_y;
};
Walk walk(Tensor x, Tensor y) {
  if (!x.contiguous() || !y.contiguous()) return {x.rows, x.cols, x.cols, x.pitch, y.pitch};
  constexpr int64_t kPiece = 4096;
  const int64_t n = x.size(), rows = (n + kPiece - 1) / kPiece;
  return {rows, kPiece, n - (rows - 1) * kPiece, kPiece, kPiece};
}

// As with_type, f64 included.
template <typename F>
void with_number(Tensor t, F&& f) {
  if (t.dtype == DType::f64) return f(static_cast<double*>(t.data));
  with_type(t, f);
}

// A double becomes a bf16 by way of fp32.
template <typename From, typename To>
void convert(From from, To& to) {
  to = To(static_cast<float>(from));
}

}  // namespace

void CpuBackend::do_copy(Tensor from, Tensor to) {
  require(same_shape(from, to), "copy keeps the shape");
  if (from.size() == 0) return;
  const Walk w = walk(from, to);
  if (from.dtype == to.dtype) {
    const int64_t size = size_of(from.dtype);
    for_rows(w.rows, threads_, [&](int64_t r) {
      const int64_t n = r + 1 == w.rows ? w.last : w.cols;
      std::memcpy(static_cast<char*>(to.data) + r * w.pitch_y * size,
                  static_cast<const char*>(from.data) + r * w.pitch_x * size, static_cast<size_t>(n * size));
    });
    return;
  }
  if (from.dtype == DType::f64 || to.dtype == DType::f64) {
    with_number(from, [&](const auto* x) {
      with_number(to, [&](auto* y) {
        for_rows(w.rows, threads_, [&](int64_t r) {
          const int64_t n = r + 1 == w.rows ? w.last : w.cols;
          for (int64_t i = 0; i < n; ++i) convert(x[r * w.pitch_x + i], y[r * w.pitch_y + i]);
        });
      });
    });
    return;
  }
  with_type(from, [&](const auto* x) {
    with_type(to, [&](auto* y) {
      for_rows(w.rows, threads_, [&](int64_t r) {
        map_row(
            r + 1 == w.rows ? w.last : w.cols, [](Vec v) { return v; }, y + r * w.pitch_y, x + r * w.pitch_x);
      });
    });
  });
}

void CpuBackend::do_zero(Tensor x) {
  if (x.contiguous()) {
    std::memset(x.data, 0, static_cast<size_t>(x.bytes()));
    return;
  }
  for (int64_t r = 0; r < x.rows; ++r) {
    Tensor one = x.rows_from(r, 1);
    std::memset(one.data, 0, static_cast<size_t>(one.bytes()));
  }
}

void CpuBackend::do_upload(const void* host, Tensor to) {
  do_copy(matrix(const_cast<void*>(host), to.rows, to.cols, to.dtype), to);
}
void CpuBackend::do_download(Tensor from, void* host) { do_copy(from, matrix(host, from.rows, from.cols, from.dtype)); }

void CpuBackend::do_gather_rows(Tensor x, Tensor index, Tensor y) {
  const int32_t* at = index.as<int32_t>();
  const int64_t size = size_of(x.dtype);
  require(x.dtype == y.dtype && x.cols == y.cols, "gather_rows keeps dtype and width");
  for_rows(index.rows, threads_, [&](int64_t r) {
    std::memcpy(static_cast<char*>(y.data) + r * y.pitch * size,
                static_cast<const char*>(x.data) + at[r] * x.pitch * size, static_cast<size_t>(x.cols * size));
  });
}

void CpuBackend::do_scatter_rows(Tensor x, Tensor index, Tensor y) {
  const int32_t* at = index.as<int32_t>();
  const int64_t size = size_of(x.dtype);
  require(x.dtype == y.dtype && x.cols == y.cols, "scatter_rows keeps dtype and width");
  for_rows(index.rows, threads_, [&](int64_t r) {
    std::memcpy(static_cast<char*>(y.data) + at[r] * y.pitch * size,
                static_cast<const char*>(x.data) + r * x.pitch * size, static_cast<size_t>(x.cols * size));
  });
}

void CpuBackend::do_add(Tensor x, Tensor y) {
  require(same_shape(x, y), "add keeps the shape");
  if (x.size() == 0) return;
  const Walk w = walk(x, y);
  if (x.dtype == DType::f64) {
    for (int64_t r = 0; r < w.rows; ++r) {
      for (int64_t i = 0; i < (r + 1 == w.rows ? w.last : w.cols); ++i)
        y.as<double>()[r * w.pitch_y + i] += x.as<double>()[r * w.pitch_x + i];
    }
    return;
  }
  with_type(x, [&](const auto* from) {
    with_type(y, [&](auto* to) {
      for_rows(w.rows, threads_, [&](int64_t r) {
        auto* out = to + r * w.pitch_y;
        map_row(
            r + 1 == w.rows ? w.last : w.cols, [](Vec a, Vec b) { return _mm256_add_ps(a, b); }, out,
            from + r * w.pitch_x, out);
      });
    });
  });
}

void CpuBackend::do_scale_rows(Tensor weights, Tensor x) {
  with_type(x, [&](auto* data) {
    for_rows(x.rows, threads_, [&](int64_t r) {
      const Vec factor = _mm256_set1_ps(weights.as<float>()[r]);
      auto* at = row(x, data, r);
      map_row(
          x.cols, [&](Vec v) { return _mm256_mul_ps(v, factor); }, at, at);
    });
  });
}

void CpuBackend::do_rope(Tensor x, Tensor positions, Tensor cosine, Tensor sine, bool inverse) {
  const int64_t half = cosine.cols, heads = x.cols / (2 * half);
  const Vec sign = _mm256_set1_ps(inverse ? -1.0f : 1.0f);
  const auto turned = [](Vec a, Vec b, Vec cv, Vec sv) {
    return std::pair{_mm256_fnmadd_ps(b, sv, _mm256_mul_ps(a, cv)), _mm256_fmadd_ps(a, sv, _mm256_mul_ps(b, cv))};
  };
  with_type(x, [&](auto* data) {
    using T = std::remove_pointer_t<decltype(data)>;
    for_rows(x.rows, threads_, [&](int64_t r) {
      const int64_t position = positions.as<int32_t>()[r];
      const float *c = cosine.as<float>() + position * cosine.pitch, *s = sine.as<float>() + position * sine.pitch;
      for (int64_t h = 0; h < heads; ++h) {
        T* first = row(x, data, r) + h * 2 * half;
        T* second = first + half;
        int64_t i = 0;
        for (; i + 2 * kLanes <= half; i += 2 * kLanes) {
          const Pair a = load_pair(first + i), b = load_pair(second + i), cv = load_pair(c + i), sv = load_pair(s + i);
          const auto [x1, y1] = turned(a.first, b.first, cv.first, _mm256_mul_ps(sv.first, sign));
          const auto [x2, y2] = turned(a.second, b.second, cv.second, _mm256_mul_ps(sv.second, sign));
          store_pair(first + i, {x1, x2});
          store_pair(second + i, {y1, y2});
        }
        for (; i + kLanes <= half; i += kLanes) {
          const auto [to_first, to_second] =
              turned(load(first + i), load(second + i), load(c + i), _mm256_mul_ps(load(s + i), sign));
          store(first + i, to_first);
          store(second + i, to_second);
        }
        for (; i < half; ++i) {
          const float a = load_one(first + i), b = load_one(second + i), sv = inverse ? -s[i] : s[i];
          store_one(first + i, a * c[i] - b * sv);
          store_one(second + i, b * c[i] + a * sv);
        }
      }
    });
  });
}

namespace {

// 1/(1 + e⁻ᵍ) within 3 ulp, 0 below -87.7; NaN stays NaN. e⁻ᵍ = 2ⁿ·p as vector.h's exp, but multiplied by 2⁻ⁿ, which is
// 0 from n = 127 on: 2⁻ⁿ/(2⁻ⁿ + p).
Vec sigmoid(Vec g) {
  const Vec x = _mm256_max_ps(_mm256_set1_ps(-88.02969f), _mm256_min_ps(_mm256_set1_ps(87.33654f), g));
  const Vec round = _mm256_set1_ps(0x1.8p23f), shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(-1.44269504f), round),
            n = _mm256_sub_ps(shifted, round);
  Vec r = _mm256_fmadd_ps(n, _mm256_set1_ps(0.693359375f), x);  // the negative of exp's
  r = _mm256_fmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  Vec p = _mm256_set1_ps(1.38145965e-3f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(-8.36871751e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.16683890e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(-1.66665211e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.99999940e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(-1));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1));
  const __m256i bits = _mm256_sub_epi32(_mm256_set1_epi32(0x4b400000 + 127), _mm256_castps_si256(shifted));
  const Vec power = _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
  return _mm256_div_ps(power, _mm256_add_ps(power, p));
}

}  // namespace

void CpuBackend::do_swiglu(Tensor gate_up, Tensor y) {
  const int64_t f = y.cols;
  with_type(y, [&](auto* out) {
    using T = std::remove_pointer_t<decltype(out)>;
    const T* in = gate_up.as<T>();
    for_rows(y.rows, threads_, [&](int64_t r) {
      const T* g = in + r * gate_up.pitch;
      map_row(
          f, [](Vec gate, Vec up) { return _mm256_mul_ps(_mm256_mul_ps(gate, sigmoid(gate)), up); }, out + r * y.pitch,
          g, g + f);
    });
  });
}

void CpuBackend::do_swiglu_backward(Tensor dy, Tensor gate_up, Tensor d_gate_up, Tensor y) {
  const int64_t f = dy.cols;
  with_type(dy, [&](auto* d) {
    using T = std::remove_pointer_t<decltype(d)>;
    const T* in = gate_up.as<T>();
    T* out = d_gate_up.as<T>();
    T* again = y.empty() ? nullptr : y.as<T>();
    for_rows(dy.rows, threads_, [&](int64_t r) {
      const T *g = in + r * gate_up.pitch, *u = g + f, *dr = d + r * dy.pitch;
      T *dg = out + r * d_gate_up.pitch, *du = dg + f, *yr = again == nullptr ? nullptr : again + r * y.pitch;
      struct Gradients {
        Vec gate, up, y;
      };
      const auto gradients = [](Vec gate, Vec up, Vec dyv) -> Gradients {
        const Vec s = sigmoid(gate), silu = _mm256_mul_ps(gate, s), one = _mm256_set1_ps(1);
        // silu' = s·(1 + gate·(1 - s))
        const Vec slope = _mm256_mul_ps(s, _mm256_fmadd_ps(gate, _mm256_sub_ps(one, s), one));
        return {_mm256_mul_ps(_mm256_mul_ps(dyv, up), slope), _mm256_mul_ps(dyv, silu), _mm256_mul_ps(silu, up)};
      };
      int64_t i = 0;
      for (; i + 2 * kLanes <= f; i += 2 * kLanes) {
        const Pair gate = load_pair(g + i), up = load_pair(u + i), dyv = load_pair(dr + i);
        const Gradients a = gradients(gate.first, up.first, dyv.first),
                        b = gradients(gate.second, up.second, dyv.second);
        store_pair(dg + i, {a.gate, b.gate});
        store_pair(du + i, {a.up, b.up});
        if (yr != nullptr) store_pair(yr + i, {a.y, b.y});
      }
      for (; i < f; ++i) {
        const Gradients one = gradients(_mm256_set1_ps(load_one(g + i)), _mm256_set1_ps(load_one(u + i)),
                                        _mm256_set1_ps(load_one(dr + i)));
        store_one(dg + i, _mm256_cvtss_f32(one.gate));
        store_one(du + i, _mm256_cvtss_f32(one.up));
        if (yr != nullptr) store_one(yr + i, _mm256_cvtss_f32(one.y));
      }
    });
  });
}

void CpuBackend::do_embedding(Tensor ids, const Weight& weight, int64_t begin, int64_t valid, Tensor y) {
  const Tensor table = values_of(weight);
  const int64_t bytes = y.cols * size_of(y.dtype);
  for_rows(ids.rows, threads_, [&](int64_t t) {
    const int64_t local = ids.as<int32_t>()[t] - begin;
    void* to = y.rows_from(t, 1).data;
    if (local >= 0 && local < valid) {
      std::memcpy(to, table.rows_from(local, 1).data, static_cast<size_t>(bytes));
    } else {
      std::memset(to, 0, static_cast<size_t>(bytes));
    }
  });
}

}  // namespace drover::cpu
