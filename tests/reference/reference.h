// Every op of kernels/backend.h as plain loops over any number type: double is the truth, Bounded says how far fp32 may
// be off, and perturbed doubles give the central differences that judge the backward ops. Used by tests only.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "tests/reference/bounded.h"
#include "tests/reference/matrix.h"

namespace drover::reference {

// alpha·op(a)·op(b) + beta·c
template <typename Real>
Matrix<Real> product(Trans ta, Trans tb, double alpha, const Matrix<Real>& a, const Matrix<Real>& b, double beta,
                     const Matrix<Real>& c) {
  Matrix<Real> out(c.rows, c.cols);
  const int64_t k = ta == Trans::no ? a.cols : a.rows;
  for (int64_t i = 0; i < c.rows; ++i) {
    for (int64_t j = 0; j < c.cols; ++j) {
      Real sum(0);
      for (int64_t l = 0; l < k; ++l)
        sum += (ta == Trans::no ? a(i, l) : a(l, i)) * (tb == Trans::no ? b(l, j) : b(j, l));
      out(i, j) = Real(alpha) * sum;
      if (beta != 0) out(i, j) += Real(beta) * c(i, j);
    }
  }
  return out;
}

template <typename Real>
struct LowRankTerm {
  Matrix<Real> u, b;
  int64_t column = 0;
};

// x·wᵀ + Σ u·bᵀ + y
template <typename Real>
Matrix<Real> linear(const Matrix<Real>& x, const Matrix<Real>& w, const std::vector<LowRankTerm<Real>>& terms,
                    const Matrix<Real>& y) {
  Matrix<Real> out = product(Trans::no, Trans::yes, 1.0, x, w, 1.0, y);
  for (const LowRankTerm<Real>& term : terms) {
    for (int64_t i = 0; i < x.rows; ++i) {
      for (int64_t j = 0; j < term.b.rows; ++j) {
        for (int64_t l = 0; l < term.b.cols; ++l) out(i, term.column + j) += term.u(i, l) * term.b(j, l);
      }
    }
  }
  return out;
}

// dy·w + v·a
template <typename Real>
Matrix<Real> linear_dx(const Matrix<Real>& dy, const Matrix<Real>& w, const Matrix<Real>& v, const Matrix<Real>& a) {
  const Matrix<Real> low = v.rows == 0 ? Matrix<Real>(dy.rows, w.cols)
                                       : product(Trans::no, Trans::no, 1.0, v, a, 0.0, Matrix<Real>(dy.rows, w.cols));
  return product(Trans::no, Trans::no, 1.0, dy, w, 1.0, low);
}

template <typename Real>
Matrix<Real> inverse_rms(const Matrix<Real>& x, double eps) {
  using std::sqrt;
  Matrix<Real> rstd(x.rows, 1);
  for (int64_t t = 0; t < x.rows; ++t) {
    Real sum(0);
    for (int64_t i = 0; i < x.cols; ++i) sum += x(t, i) * x(t, i);
    rstd(t, 0) = Real(1) / sqrt(sum / Real(static_cast<double>(x.cols)) + Real(eps));
  }
  return rstd;
}

template <typename Real>
Matrix<Real> rms_norm(const Matrix<Real>& x, const Matrix<Real>& w, const Matrix<Real>& rstd) {
  Matrix<Real> y(x.rows, x.cols);
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t i = 0; i < x.cols; ++i) y(t, i) = x(t, i) * rstd(t, 0) * w(i, 0);
  }
  return y;
}

// dx + the gradient that dy sends through the norm
template <typename Real>
Matrix<Real> rms_norm_backward(const Matrix<Real>& dy, const Matrix<Real>& x, const Matrix<Real>& rstd,
                               const Matrix<Real>& w, const Matrix<Real>& dx) {
  Matrix<Real> out = dx;
  for (int64_t t = 0; t < x.rows; ++t) {
    Real mean(0);
    for (int64_t i = 0; i < x.cols; ++i) mean += dy(t, i) * w(i, 0) * (x(t, i) * rstd(t, 0));
    mean = mean / Real(static_cast<double>(x.cols));
    for (int64_t i = 0; i < x.cols; ++i) out(t, i) += rstd(t, 0) * (dy(t, i) * w(i, 0) - x(t, i) * rstd(t, 0) * mean);
  }
  return out;
}

template <typename Real>
Matrix<Real> rope(const Matrix<Real>& x, std::span<const int32_t> positions, const Matrix<Real>& cosine,
                  const Matrix<Real>& sine, bool inverse) {
  Matrix<Real> y(x.rows, x.cols);
  const int64_t half = cosine.cols;
  for (int64_t t = 0; t < x.rows; ++t) {
    const int64_t p = positions[static_cast<size_t>(t)];
    for (int64_t h = 0; h < x.cols; h += 2 * half) {
      for (int64_t i = 0; i < half; ++i) {
        const Real c = cosine(p, i), s = inverse ? -sine(p, i) : sine(p, i);
        y(t, h + i) = x(t, h + i) * c - x(t, h + half + i) * s;
        y(t, h + half + i) = x(t, h + half + i) * c + x(t, h + i) * s;
      }
    }
  }
  return y;
}

template <typename Real>
Real sigmoid(Real x) {
  using std::exp;
  return Real(1) / (Real(1) + exp(-x));
}

template <typename Real>
Matrix<Real> swiglu(const Matrix<Real>& gate_up) {
  const int64_t f = gate_up.cols / 2;
  Matrix<Real> y(gate_up.rows, f);
  for (int64_t t = 0; t < y.rows; ++t) {
    for (int64_t i = 0; i < f; ++i) y(t, i) = gate_up(t, i) * sigmoid(gate_up(t, i)) * gate_up(t, f + i);
  }
  return y;
}

template <typename Real>
Matrix<Real> swiglu_backward(const Matrix<Real>& dy, const Matrix<Real>& gate_up) {
  const int64_t f = dy.cols;
  Matrix<Real> d(dy.rows, 2 * f);
  for (int64_t t = 0; t < dy.rows; ++t) {
    for (int64_t i = 0; i < f; ++i) {
      const Real g = gate_up(t, i), s = sigmoid(g);
      d(t, i) = dy(t, i) * gate_up(t, f + i) * (s * (Real(1) + g * (Real(1) - s)));
      d(t, f + i) = dy(t, i) * (g * s);
    }
  }
  return d;
}

inline bool kept(uint64_t key, float p, int32_t document, int32_t position, int64_t column) {
  const uint64_t token = static_cast<uint64_t>(static_cast<uint32_t>(document)) << 32 | static_cast<uint32_t>(position);
  return philox_uniform(PhiloxKey::of(key), static_cast<uint64_t>(column), token) >= p;
}

// The row of the pool that holds position p of a segment.
inline int64_t key_row(const Segment& s, int64_t block_size, int64_t p) {
  return s.block_table == nullptr ? s.k0 + p : s.block_table[p / block_size] * block_size + p % block_size;
}

template <typename Real>
struct Attended {
  Matrix<Real> o, lse;  // lse keeps -inf where a row sees nothing
};

// The weights of one query over the keys it sees, and ln Σ exp of its scores.
template <typename Real>
std::vector<Real> softmax_row(const Matrix<Real>& q, const Matrix<Real>& k, const Segment& s,
                              const AttentionShape& shape, int64_t block_size, int64_t head, int64_t i, Real& lse) {
  using std::exp;
  using std::log;
  const int64_t e = shape.head_dim, kv_head = head / (shape.heads / shape.kv_heads);
  const int64_t seen = std::clamp<int64_t>(i + s.offset + 1, 0, s.nk);
  std::vector<Real> p(static_cast<size_t>(seen));
  for (int64_t j = 0; j < seen; ++j) {
    Real score(0);
    for (int64_t l = 0; l < e; ++l) score += q(s.q0 + i, head * e + l) * k(key_row(s, block_size, j), kv_head * e + l);
    p[static_cast<size_t>(j)] = score * Real(static_cast<double>(shape.scale));
  }
  if (seen == 0) {
    lse = Real(-std::numeric_limits<double>::infinity());
    return p;
  }
  const Real highest = *std::max_element(p.begin(), p.end());
  Real total(0);
  for (Real& x : p) total += x = exp(x - highest);
  for (Real& x : p) x = x / total;
  lse = highest + log(total);
  return p;
}

template <typename Real>
Attended<Real> attention(const Matrix<Real>& q, const Matrix<Real>& k, const Matrix<Real>& v, int64_t block_size,
                         std::span<const Segment> segments, const AttentionShape& shape) {
  Attended<Real> out{Matrix<Real>(q.rows, q.cols), Matrix<Real>(q.rows, shape.heads)};
  const int64_t e = shape.head_dim, group = shape.heads / shape.kv_heads;
  for (const Segment& s : segments) {
    for (int64_t h = 0; h < shape.heads; ++h) {
      for (int64_t i = 0; i < s.nq; ++i) {
        const std::vector<Real> p = softmax_row(q, k, s, shape, block_size, h, i, out.lse(s.q0 + i, h));
        for (size_t j = 0; j < p.size(); ++j) {
          for (int64_t l = 0; l < e; ++l)
            out.o(s.q0 + i, h * e + l) += p[j] * v(key_row(s, block_size, static_cast<int64_t>(j)), h / group * e + l);
        }
      }
    }
  }
  return out;
}

template <typename Real>
struct AttentionGradients {
  Matrix<Real> dq, dk, dv;
};

// ds = p∘(dO·Vᵀ - Σ_j dO·O), dq = scale·ds·K, dk = scale·dsᵀ·Q, dv = pᵀ·dO
template <typename Real>
AttentionGradients<Real> attention_backward(const Matrix<Real>& q, const Matrix<Real>& k, const Matrix<Real>& v,
                                            std::span<const Segment> segments, const AttentionShape& shape,
                                            const Matrix<Real>& o, const Matrix<Real>& d_o) {
  AttentionGradients<Real> out{Matrix<Real>(q.rows, q.cols), Matrix<Real>(k.rows, k.cols),
                               Matrix<Real>(v.rows, v.cols)};
  const int64_t e = shape.head_dim, group = shape.heads / shape.kv_heads;
  const Real scale(static_cast<double>(shape.scale));
  for (const Segment& s : segments) {
    for (int64_t h = 0; h < shape.heads; ++h) {
      const int64_t own = h * e, shared = h / group * e;
      for (int64_t i = 0; i < s.nq; ++i) {
        const int64_t query = s.q0 + i;
        Real unused, delta(0);
        const std::vector<Real> p = softmax_row(q, k, s, shape, 0, h, i, unused);
        for (int64_t l = 0; l < e; ++l) delta += d_o(query, own + l) * o(query, own + l);
        for (size_t j = 0; j < p.size(); ++j) {
          const int64_t key = s.k0 + static_cast<int64_t>(j);
          Real dp(0);
          for (int64_t l = 0; l < e; ++l) dp += d_o(query, own + l) * v(key, shared + l);
          const Real ds = p[j] * (dp - delta) * scale;
          for (int64_t l = 0; l < e; ++l) {
            out.dq(query, own + l) += ds * k(key, shared + l);
            out.dk(key, shared + l) += ds * q(query, own + l);
            out.dv(key, shared + l) += p[j] * d_o(query, own + l);
          }
        }
      }
    }
  }
  return out;
}

// ln Σ exp over the first `valid` columns of each row.
template <typename Real>
Matrix<Real> log_sum_exp(const Matrix<Real>& logits, int64_t valid) {
  using std::exp;
  using std::log;
  Matrix<Real> lse(logits.rows, 1);
  for (int64_t r = 0; r < logits.rows; ++r) {
    Real highest = logits(r, 0), total(0);
    for (int64_t j = 1; j < valid; ++j) highest = std::max(highest, logits(r, j));
    for (int64_t j = 0; j < valid; ++j) total += exp(logits(r, j) - highest);
    lse(r, 0) = highest + log(total);
  }
  return lse;
}

template <typename Real>
Matrix<Real> cross_entropy_backward(const Matrix<Real>& logits, std::span<const int32_t> labels, int64_t begin,
                                    int64_t valid, const Matrix<Real>& lse) {
  using std::exp;
  Matrix<Real> d(logits.rows, logits.cols);
  for (int64_t r = 0; r < d.rows; ++r) {
    for (int64_t j = 0; j < valid; ++j)
      d(r, j) = exp(logits(r, j) - lse(r, 0)) - Real(labels[static_cast<size_t>(r)] == begin + j ? 1 : 0);
  }
  return d;
}

struct Choice {
  int32_t column = 0;
  double margin = 1;  // how far the nearest decision was from falling otherwise, as a share of all mass
};

// The column that one row of logits chooses.
inline Choice sampled(std::span<const double> logits, const SamplingRow& how) {
  const double temperature = how.temperature, top_p = how.top_p, uniform = how.uniform;
  std::vector<int32_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  const auto logit = [&](int32_t i) { return logits[static_cast<size_t>(i)]; };
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return logit(a) != logit(b) ? logit(a) > logit(b) : a < b; });
  std::vector<double> reached;  // mass of a column with all before it
  for (int32_t i : order)
    reached.push_back((reached.empty() ? 0 : reached.back()) + std::exp((logit(i) - logit(order[0])) / temperature));
  size_t kept = how.top_k > 0 ? std::min(order.size(), static_cast<size_t>(how.top_k)) : order.size();
  while (kept > 1 && std::exp((logit(order[kept - 1]) - logit(order[0])) / temperature) < how.min_p) --kept;
  reached.resize(kept);
  const double all = reached.back();
  Choice choice;
  // The first column whose mass, with all before it, is at least `need`, or above it.
  const auto first = [&](double need, bool above) {
    size_t i = 0;
    while (i + 1 < reached.size() && (above ? reached[i] <= need : reached[i] < need)) ++i;
    for (double r : {i > 0 ? reached[i - 1] : -all, reached[i]}) {
      if (r < all) choice.margin = std::min(choice.margin, std::abs(r - need) / all);
    }
    return i;
  };
  const size_t last = first(top_p * all, false);
  choice.column = order[first(uniform * reached[last], true)];
  return choice;
}

// A row of logits without the columns whose bit is 0.
inline void allow(std::span<double> logits, const std::vector<bool>& bits) {
  for (size_t v = 0; v < logits.size(); ++v) {
    if (!bits[v] && std::isfinite(logits[v])) logits[v] = static_cast<double>(kForbiddenLogit);
  }
}

// One AdamW update of one number.
template <typename Real>
void adamw(const AdamW& s, Real g, Real& p, Real& m, Real& v) {
  using std::sqrt;
  const double b1 = s.beta1, b2 = s.beta2, t = static_cast<double>(s.step), lr = s.learning_rate;
  p = p - Real(lr) * Real(s.weight_decay) * p;
  m = Real(b1) * m + Real(1 - b1) * g;
  v = Real(b2) * v + Real(1 - b2) * (g * g);
  const Real root = sqrt(v) / Real(std::sqrt(1 - std::pow(b2, t))) + Real(s.eps);
  p = p - Real(lr / (1 - std::pow(b1, t))) * m / root;
}

}  // namespace drover::reference
