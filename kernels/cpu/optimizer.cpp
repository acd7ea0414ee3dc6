// Sums for the gradient norm and the AdamW update on flat buffers, in fixed blocks.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/cpu_backend.h"

namespace drover::cpu {

namespace {

constexpr int64_t kBlock = 16384;

// Σ over blocks of f(begin, end), added in block order.
template <typename F>
double sum_blocks(int64_t n, int threads, F&& f) {
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> parts(static_cast<size_t>(blocks));
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t b = 0; b < blocks; ++b) parts[static_cast<size_t>(b)] = f(b * kBlock, std::min(n, (b + 1) * kBlock));
  double total = 0;
  for (double part : parts) total += part;
  return total;
}

}  // namespace

void CpuBackend::do_sum_squares(Tensor x, Tensor total) { do_dot(x, x, total); }

void CpuBackend::do_dot(Tensor x, Tensor y, Tensor total) {
  require(x.contiguous() && y.contiguous() && x.size() == y.size(), "dot takes two vectors of one length");
  const float *a = x.as<float>(), *b = y.as<float>();
  total.as<double>()[0] += sum_blocks(x.size(), threads_, [&](int64_t begin, int64_t end) {
    double s = 0;
    for (int64_t i = begin; i < end; ++i) s += static_cast<double>(a[i]) * b[i];
    return s;
  });
}

void CpuBackend::do_clip_factor(Tensor total, float max_norm, Tensor factor) {
  const double norm = std::sqrt(total.as<double>()[0]);
  if (!std::isfinite(norm) || std::isnan(factor.as<float>()[0])) {
    factor.as<float>()[0] = NAN;
    return;
  }
  factor.as<float>()[0] =
      max_norm <= 0 ? 1.0f : static_cast<float>(std::min(1.0, static_cast<double>(max_norm) / (norm + 1e-6)));
}

void CpuBackend::do_adamw(const AdamW& s, Tensor factor, Tensor g, Tensor p, Tensor m, Tensor v) {
  const float clip = factor.as<float>()[0];
  if (!std::isfinite(clip)) return;
  const double t = static_cast<double>(s.step), lr = s.learning_rate;
  const double correction1 = 1 - std::pow(s.beta1, t), correction2 = 1 - std::pow(s.beta2, t);
  const float step_size = static_cast<float>(lr / correction1), root2 = static_cast<float>(std::sqrt(correction2));
  const float decay = static_cast<float>(1 - lr * s.weight_decay);
  const float rest1 = static_cast<float>(1 - s.beta1), beta2 = static_cast<float>(s.beta2),
              rest2 = static_cast<float>(1 - s.beta2), eps = static_cast<float>(s.eps);
  const int64_t n = p.size();
  const float* gs = g.as<float>();
  float *ps = p.as<float>(), *ms = m.as<float>(), *vs = v.as<float>();
#pragma omp parallel for num_threads(threads_) schedule(static)
  for (int64_t i = 0; i < n; ++i) {
    const float gi = gs[i] * clip;
    ms[i] = ms[i] + (gi - ms[i]) * rest1;
    vs[i] = vs[i] * beta2 + gi * gi * rest2;
    ps[i] = ps[i] * decay - step_size * ms[i] / (std::sqrt(vs[i]) / root2 + eps);
  }
}

}  // namespace drover::cpu
