// Moving and pointwise ops. Each row is one thread's; within a row every value is computed the same way wherever it
// stands.
#include <cstring>

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
  with_type(x, [&](auto* data) {
    using T = std::remove_pointer_t<decltype(data)>;
    for_rows(x.rows, threads_, [&](int64_t r) {
      const int64_t position = positions.as<int32_t>()[r];
      const float *c = cosine.as<float>() + position * cosine.pitch, *s = sine.as<float>() + position * sine.pitch;
      for (int64_t h = 0; h < heads; ++h) {
        T* first = row(x, data, r) + h * 2 * half;
        T* second = first + half;
        int64_t i = 0;
        for (; i + kLanes <= half; i += kLanes) {
          const Vec a = load(first + i), b = load(second + i), cv = load(c + i), sv = _mm256_mul_ps(load(s + i), sign);
          store(first + i, _mm256_fnmadd_ps(b, sv, _mm256_mul_ps(a, cv)));
          store(second + i, _mm256_fmadd_ps(a, sv, _mm256_mul_ps(b, cv)));
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

Vec sigmoid(Vec g) {
  const Vec one = _mm256_set1_ps(1);
  return _mm256_div_ps(one, _mm256_add_ps(one, exp(_mm256_sub_ps(_mm256_setzero_ps(), g))));
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
      const auto all = [](Vec gate, Vec up, Vec dyv, Vec& dgate, Vec& dup, Vec& yv) {
        const Vec s = sigmoid(gate), silu = _mm256_mul_ps(gate, s), one = _mm256_set1_ps(1);
        // silu' = s·(1 + gate·(1 - s))
        const Vec slope = _mm256_mul_ps(s, _mm256_fmadd_ps(gate, _mm256_sub_ps(one, s), one));
        dgate = _mm256_mul_ps(_mm256_mul_ps(dyv, up), slope);
        dup = _mm256_mul_ps(dyv, silu);
        yv = _mm256_mul_ps(silu, up);
      };
      int64_t i = 0;
      Vec a, b, c;
      for (; i + kLanes <= f; i += kLanes) {
        all(load(g + i), load(u + i), load(dr + i), a, b, c);
        store(dg + i, a);
        store(du + i, b);
        if (yr != nullptr) store(yr + i, c);
      }
      for (; i < f; ++i) {
        all(_mm256_set1_ps(load_one(g + i)), _mm256_set1_ps(load_one(u + i)), _mm256_set1_ps(load_one(dr + i)), a, b,
            c);
        store_one(dg + i, _mm256_cvtss_f32(a));
        store_one(du + i, _mm256_cvtss_f32(b));
        if (yr != nullptr) store_one(yr + i, _mm256_cvtss_f32(c));
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
