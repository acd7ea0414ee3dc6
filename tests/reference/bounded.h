// A number that carries an estimate of its own rounding error, so that the reference ops, run on it, say how far an
// fp32 implementation may be off. Each operation rounds by at most |result|·u and inherits its operands' errors to
// first order; errors add as independent ones do: error² = Σ (∂f/∂xᵢ·errorᵢ)² + f², in units of u = 2⁻²⁴. Source:
// Wilkinson's running error analysis; Higham & Mary 2019 for the √n.
#pragma once
#include <cmath>

namespace drover::reference {

inline double root(double a, double b) { return std::sqrt(a * a + b * b); }

struct Bounded {
  double value = 0;
  double error = 0;  // in units of u
  Bounded() = default;
  explicit(false) Bounded(double exact) : value(exact) {}
  Bounded(double v, double inherited) : value(v), error(root(v, inherited)) {}

  Bounded operator-() const {
    Bounded result = *this;
    result.value = -value;
    return result;
  }
  Bounded& operator+=(Bounded b) { return *this = *this + b; }
  friend Bounded operator+(Bounded a, Bounded b) { return {a.value + b.value, root(a.error, b.error)}; }
  friend Bounded operator-(Bounded a, Bounded b) { return {a.value - b.value, root(a.error, b.error)}; }
  friend Bounded operator*(Bounded a, Bounded b) {
    return {a.value * b.value, root(a.error * b.value, b.error * a.value)};
  }
  friend Bounded operator/(Bounded a, Bounded b) {
    const double quotient = a.value / b.value;
    return {quotient, root(a.error, quotient * b.error) / b.value};
  }
  friend bool operator<(Bounded a, Bounded b) { return a.value < b.value; }
};

inline Bounded exp(Bounded x) {
  const double e = std::exp(x.value);
  return {e, e * root(x.error, 1.0)};  // up to two units of its own
}
inline Bounded log(Bounded x) { return {std::log(x.value), x.error / x.value}; }
inline Bounded sqrt(Bounded x) {
  const double r = std::sqrt(x.value);
  return {r, x.error / (2 * r)};
}

}  // namespace drover::reference
