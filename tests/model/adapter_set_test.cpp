// What an adapter begins with, and that every tensor-parallel rank begins with its part of the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/backend.h"
#include "kernels/base/error.h"
#include "kernels/cpu/cpu_backend.h"
#include "model/adapter.h"

namespace drover {
namespace {

ModelConfig model() {
  ModelConfig c;
  c.hidden = 64, c.layers = 2, c.heads = 8, c.kv_heads = 4, c.head_dim = 12, c.ffn = 160, c.vocab = 100;
  return c;
}

// Whole factors as the ranks of a tensor-parallel group hold them together.
std::map<std::string, std::vector<float>> drawn_by(int tp, uint64_t seed) {
  const ModelConfig c = model();
  const AdapterLayout layout = adapter_layout(c, [](const std::string&) { return LowRankSpec{16, 2}; });
  std::map<std::string, std::vector<float>> whole;
  for (int rank = 0; rank < tp; ++rank) {
    const auto backend = make_cpu_backend(1);
    Arena arena("adapter", backend->memory(), 8 << 20);
    const Placement placement{.tp_rank = rank, .tp_size = tp, .layer_end = c.layers};
    const std::vector<FactorSlice> factors = factor_slices(c, layout, placement);
    const Tensor parameters = arena.tensor(size_of(std::span<const FactorSlice>(factors)), 1, DType::f32);
    AdapterSet set(layout, factors, parameters, {}, DType::f32, *backend, arena);
    set.initialise(seed);
    for (const FactorSlice& f : set.factors()) {
      std::vector<float>& values = whole[f.name];
      values.resize(static_cast<size_t>(f.rows * f.cols), NAN);
      const Tensor part = view(set.parameters, f);
      for (int64_t r = 0; r < f.row_count; ++r) {
        for (int64_t k = 0; k < f.col_count; ++k)
          values[static_cast<size_t>((f.row_begin + r) * f.cols + f.col_begin + k)] =
              part.as<float>()[r * part.pitch + k];
      }
    }
  }
  return whole;
}

TEST(AdapterSet, FindsEachFactorAndNoOther) {
  const ModelConfig c = model();
  const AdapterLayout layout = adapter_layout(c, [](const std::string& path) {
    return path.ends_with("q_proj") || path.ends_with("down_proj") ? std::optional(LowRankSpec{4, 1}) : std::nullopt;
  });
  const auto backend = make_cpu_backend(1);
  Arena arena("adapter", backend->memory(), 8 << 20);
  const Placement placement{.layer_begin = 1, .layer_end = c.layers};
  const std::vector<FactorSlice> factors = factor_slices(c, layout, placement);
  const Tensor parameters = arena.tensor(size_of(std::span<const FactorSlice>(factors)), 1, DType::f32);
  const AdapterSet set(layout, factors, parameters, {}, DType::f32, *backend, arena);
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    for (Projection p : kAllProjections) {
      for (const FactorName& name : kFactors) {
        const FactorSlice* found = set.find(layer, p, name.factor);
        ASSERT_EQ(found != nullptr, layer >= 1 && (p == Projection::q || p == Projection::down)) << layer;
        if (found == nullptr) continue;
        EXPECT_EQ(found->name, fmt::format("{}{}", module_path(layer, p), name.suffix));
      }
    }
  }
}

TEST(AdapterSet, BeginsAsPeftDraws) {  // Kaiming uniform with a = √5: uniform in ±1/√fan_in; B is zero
  for (const auto& [name, values] : drawn_by(1, 42)) {
    double largest = 0, squares = 0, sum = 0;
    for (float v : values) {
      largest = std::max<double>(largest, std::abs(v));
      squares += static_cast<double>(v) * v;
      sum += v;
    }
    if (name.ends_with("lora_B")) {
      EXPECT_EQ(largest, 0) << name;
      continue;
    }
    const double n = static_cast<double>(values.size()), fan_in = n / 16, bound = 1 / std::sqrt(fan_in);
    EXPECT_LE(largest, bound * (1 + 1e-6)) << name;
    EXPECT_GT(largest, 0.99 * bound) << name;
    EXPECT_NEAR(squares / n, bound * bound / 3, 4 * bound * bound / std::sqrt(n) * std::sqrt(4.0 / 45))
        << name;  // four standard deviations
    EXPECT_NEAR(sum / n, 0, 4 * bound / std::sqrt(3 * n)) << name;
  }
}

TEST(AdapterSet, EveryMeshBeginsAlike) {
  const auto whole = drawn_by(1, 7);
  EXPECT_EQ(drawn_by(2, 7), whole);
  EXPECT_EQ(drawn_by(4, 7), whole);
  EXPECT_NE(drawn_by(1, 8), whole);
  EXPECT_NE(whole.at("model.layers.0.self_attn.q_proj.lora_A"), whole.at("model.layers.1.self_attn.q_proj.lora_A"));
}

TEST(AdapterSet, WholeFactorsLieFirstAndAllOfAKindTogether) {
  const ModelConfig c = model();
  const AdapterLayout layout = adapter_layout(c, [](const std::string&) { return LowRankSpec{16, 2}; });
  std::vector<FactorSlice> factors = factor_slices(c, layout, {.tp_rank = 1, .tp_size = 2, .layer_end = c.layers});
  for (const FactorSlice& f : factors) {
    const bool by_output = f.projection != Projection::o && f.projection != Projection::down;
    EXPECT_EQ(f.whole, by_output == (f.factor == Factor::a)) << f.name;
    EXPECT_EQ(f.whole, f.size() == f.rows * f.cols) << f.name;
    EXPECT_EQ(f.factor, factor_of(f.name)) << f.name;
  }
  std::ranges::sort(factors, {}, &FactorSlice::offset);
  std::vector<std::pair<bool, Factor>> runs;
  for (const FactorSlice& f : factors) {
    if (runs.empty() || runs.back() != std::pair(f.whole, f.factor)) runs.emplace_back(f.whole, f.factor);
  }
  EXPECT_EQ(runs, (std::vector<std::pair<bool, Factor>>{
                      {true, Factor::a}, {true, Factor::b}, {false, Factor::a}, {false, Factor::b}}));
}

}  // namespace
}  // namespace drover
