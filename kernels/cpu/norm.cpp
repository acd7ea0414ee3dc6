// RMSNorm forward and backward, a row at a time; the sums of a row run in fp32 over eight lanes in a fixed order.
#include <cmath>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu {

namespace {

// Σ f(i-th values) over a row.
template <typename F, typename... In>
float sum_row(int64_t n, F&& f, const In*... x) {
  Vec total = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) total = _mm256_add_ps(total, f(load(x + i)...));
  if (i < n) {
    const auto tail = [&](const auto* p) {
      alignas(32) float buffer[kLanes] = {};
      for (int64_t j = 0; i + j < n; ++j) buffer[j] = load_one(p + i + j);
      return load(buffer);
    };
    total = _mm256_add_ps(total, f(tail(x)...));
  }
  return sum(total);
}

}  // namespace

void CpuBackend::do_rms_norm(Tensor x, Tensor w, float eps, Tensor y, Tensor rstd) {
  with_type(x, [&](const auto* xs) {
#pragma omp parallel for num_threads(threads_) schedule(static) if (x.rows > 1)
    for (int64_t r = 0; r < x.rows; ++r) {
      const float squares = sum_row(
          x.cols, [](Vec v) { return _mm256_mul_ps(v, v); }, xs + r * x.pitch);
      rstd.as<float>()[r] = 1.0f / std::sqrt(squares / static_cast<float>(x.cols) + eps);
    }
  });
  rms_norm_again(x, rstd, w, y);
}

void CpuBackend::do_rms_norm_again(Tensor x, Tensor rstd, Tensor w, Tensor y) {
  with_type(x, [&](const auto* xs) {
    with_type(w, [&](const auto* ws) {
      with_type(y, [&](auto* ys) {
#pragma omp parallel for num_threads(threads_) schedule(static) if (x.rows > 1)
        for (int64_t r = 0; r < x.rows; ++r) {
          const Vec scale = _mm256_set1_ps(rstd.as<float>()[r]);
          map_row(
              x.cols, [&](Vec v, Vec weight) { return _mm256_mul_ps(_mm256_mul_ps(v, scale), weight); },
              ys + r * y.pitch, xs + r * x.pitch, ws);
        }
      });
    });
  });
}

void CpuBackend::do_rms_norm_backward(Tensor dy, Tensor x, Tensor rstd, Tensor w, Tensor dx) {
  with_type(dy, [&](const auto* dys) {
    with_type(x, [&](const auto* xs) {
      with_type(w, [&](const auto* ws) {
        with_type(dx, [&](auto* dxs) {
#pragma omp parallel for num_threads(threads_) schedule(static)
          for (int64_t r = 0; r < x.rows; ++r) {
            const auto* g = dys + r * dy.pitch;
            const auto* in = xs + r * x.pitch;
            auto* out = dxs + r * dx.pitch;
            const float s = rstd.as<float>()[r];
            const float product = sum_row(
                x.cols, [](Vec a, Vec weight, Vec b) { return _mm256_mul_ps(_mm256_mul_ps(a, weight), b); }, g, ws, in);
            // x̂ = x·s, so x̂·mean(g·x̂) = x·s²·product/D
            const Vec scale = _mm256_set1_ps(s), back = _mm256_set1_ps(s * s * product / static_cast<float>(x.cols));
            map_row(
                x.cols,
                [&](Vec gv, Vec weight, Vec xv, Vec old) {
                  return _mm256_fmadd_ps(scale, _mm256_fnmadd_ps(xv, back, _mm256_mul_ps(gv, weight)), old);
                },
                out, g, ws, in, out);
          }
        });
      });
    });
  });
}

}  // namespace drover::cpu
