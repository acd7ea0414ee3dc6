#include "trainer/export/adapter_effect.h"

#include <cmath>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "model/files/factor.h"

namespace drover {

namespace {

// `count` vectors of r numbers, element i of vector v at values[v·outer + i·inner]: Σ of their outer products, r × r.
std::vector<double> gram(const std::vector<float>& values, int64_t count, int64_t r, int64_t outer, int64_t inner) {
  std::vector<double> sum(static_cast<size_t>(r * r)), one(static_cast<size_t>(r));
  for (int64_t v = 0; v < count; ++v) {
    for (int64_t i = 0; i < r; ++i) one[static_cast<size_t>(i)] = values[static_cast<size_t>(v * outer + i * inner)];
    for (int64_t i = 0; i < r; ++i) {
      double* row = sum.data() + i * r;
      for (int64_t j = 0; j < r; ++j) row[j] += one[static_cast<size_t>(i)] * one[static_cast<size_t>(j)];
    }
  }
  return sum;
}

// "a.weight, b.weight and 7 more"
std::string listed_shortly(const std::vector<std::string>& names) {
  constexpr size_t kShown = 3;
  const size_t shown = std::min(kShown, names.size());
  const auto end = names.begin() + static_cast<std::ptrdiff_t>(shown);
  return fmt::format("{}{}", fmt::join(names.begin(), end, ", "),
                     names.size() > shown ? fmt::format(" and {} more", names.size() - shown) : "");
}

bool has_base_weights(const AdapterFile& adapter, const fs::path& base) {
  if (adapter.weights().empty()) return true;
  ModelDirectory directory(base);
  return keeps_base(adapter, directory);
}

}  // namespace

std::map<std::string, double> squared_effects(const AdapterFile& adapter) {
  const AdapterMatcher matcher(adapter.config());
  std::map<std::string, double> effects;
  for (const auto& [name, shape] : adapter.shapes()) {
    if (factor_of(name) != Factor::a) continue;
    const std::string path = name.substr(0, name.size() - suffix_of(Factor::a).size());
    const AdapterMatrix a = adapter.read(name), b = adapter.read(path + std::string(suffix_of(Factor::b)));
    const std::vector<double> of_a = gram(a.values, a.cols, a.rows, 1, a.cols);
    const std::vector<double> of_b = gram(b.values, b.rows, b.cols, b.cols, 1);
    double both = 0;
    for (size_t i = 0; i < of_a.size(); ++i) both += of_a[i] * of_b[i];
    const auto target = matcher.match(path);
    const double scale = target ? target->scale : 0;
    effects[path] = scale * scale * std::max(0.0, both);
  }
  return effects;
}

double effect_of(const AdapterFile& adapter, const fs::path& base) {
  double sum = 0;
  for (const auto& [path, squared] : squared_effects(adapter)) sum += squared;
  if (!(sum > 0) && has_base_weights(adapter, base)) {
    fail(Fault::bad_data,
         "{}: B·A is zero in every linear, so that this adapter has no effect; train it, or leave it out",
         adapter.directory().string());
  }
  return std::sqrt(sum);
}

void say_effect(const fs::path& directory, const fs::path& base) {
  const AdapterFile adapter(directory);
  const double effect = effect_of(adapter, base);
  const std::vector<std::string> weights = adapter.weights();
  const size_t linears = (adapter.shapes().size() - weights.size()) / 2;
  log::info("adapter {}: {} linears, ‖ΔW‖ {:.3g}{}", directory.string(), linears, effect,
            weights.empty() ? "" : fmt::format("; in place of the base's: {}", listed_shortly(weights)));
}

}  // namespace drover
