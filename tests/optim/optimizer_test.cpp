// Every parameter group moves at its own rate, all are clipped by one norm, and a norm that is not finite stops all
// updates.
#include "optim/optimizer.h"

#include <gtest/gtest.h>

#include <map>

#include "kernels/count/count.h"
#include "tests/optim/some_slices.h"

namespace drover {
namespace {

constexpr double kRate = 1e-2, kNorm = 3;
constexpr int64_t kSteps = 3;

OptimizerSettings settings_of(std::vector<double> group_rates) {
  return {.learning_rate = {LearningRateShape::linear, kRate, 1, 10},
          .weight_decay = 0.1,
          .max_grad_norm = kNorm,
          .group_rates = std::move(group_rates)};
}

using Named = std::map<std::string, std::vector<float>>;

// Every parameter after some steps, each with another gradient.
Named trained(const OptimizerSettings& settings, std::vector<Slice> slices = some_slices(make_self_mesh())) {
  SomeTrainables some(std::move(slices));
  Mesh mesh = make_self_mesh();
  Trainables& t = some.trainables;
  Optimizer optimizer(settings, {}, t, kLayers, mesh, *some.backend, some.arena, some.scratch);
  for (int64_t step = 1; step <= kSteps; ++step) {
    optimizer.start();
    fill(t, t.gradients, static_cast<int>(step));
    optimizer.add_micro_batch(0);
    optimizer.sum();
    EXPECT_GT(optimizer.update(step).value(), kNorm);
  }
  Named result;
  for (const Slice& s : t.slices()) {
    const float* p = view(t.parameters, s).as<float>();
    result[s.name] = {p, p + s.size()};
  }
  return result;
}

// The same by one AdamW for each slice.
Named expected(const OptimizerSettings& settings) {
  SomeTrainables some(some_slices(make_self_mesh()));
  const Trainables& t = some.trainables;
  Named result;
  for (int64_t step = 1; step <= kSteps; ++step) {
    fill(t, t.gradients, static_cast<int>(step));
    double squares = 0;
    for (int64_t i = 0; i < t.size(); ++i) squares += std::pow(static_cast<double>(t.gradients.as<float>()[i]), 2);
    float factor = static_cast<float>(kNorm / (std::sqrt(squares) + 1e-6));
    for (const Slice& s : t.slices()) {
      const double rate = settings.group_rates.empty() ? 1 : settings.group_rates[static_cast<size_t>(s.group)];
      const AdamW adamw{.learning_rate = settings.learning_rate.at(step - 1) * rate,
                        .weight_decay = settings.weight_decay,
                        .step = step};
      const auto part = [&](Tensor flat) { return flat.rows_from(s.offset, s.size()); };
      some.backend->adamw(adamw, matrix(&factor, 1, 1), part(t.gradients), part(t.parameters), part(t.moment1),
                          part(t.moment2));
      const float* p = view(t.parameters, s).as<float>();
      result[s.name] = {p, p + s.size()};
    }
  }
  return result;
}

TEST(Optimizer, EveryGroupMovesAtItsRate) {
  for (const std::vector<double>& rates : {std::vector<double>{}, {1, 16}, {0.5, 1}, {1, 0}})
    EXPECT_EQ(trained(settings_of(rates)), expected(settings_of(rates)));
}

TEST(Optimizer, AGroupThatIsNotListedMovesAtTheBaseRate) {
  EXPECT_EQ(trained(settings_of({4})), expected(settings_of({4, 1})));
}

TEST(Optimizer, ASliceInTheWrongGroupIsNoticed) {
  std::vector<Slice> slices = some_slices(make_self_mesh());
  slices[3].group = 0;
  lay_out(std::span(slices));
  const Named right = trained(settings_of({1, 16})), wrong = trained(settings_of({1, 16}), slices);
  for (const auto& [name, values] : right) EXPECT_EQ(values == wrong.at(name), name != slices[3].name) << name;
}

TEST(Optimizer, GroupsOfOneRateAreOneCall) {
  const auto calls = [](std::vector<double> rates) {
    SomeTrainables some(some_slices(make_self_mesh()));
    CountBackend backend;
    Mesh mesh = make_self_mesh();
    Arena arena("optimizer", backend.memory(), 1 << 20), scratch("scratch", backend.memory(), 1 << 20);
    Optimizer(settings_of(std::move(rates)), {}, some.trainables, kLayers, mesh, backend, arena, scratch).update(1);
    return backend.calls("adamw");
  };
  EXPECT_EQ(calls({}), 1);
  EXPECT_EQ(calls({2, 2}), 1);
  EXPECT_EQ(calls({1, 2}), 4);
}

TEST(Optimizer, ANormThatIsNotFiniteStopsAllUpdates) {
  SomeTrainables some(some_slices(make_self_mesh()));
  Mesh mesh = make_self_mesh();
  Trainables& t = some.trainables;
  Optimizer optimizer(settings_of({1, 16}), {}, t, kLayers, mesh, *some.backend, some.arena, some.scratch);
  const auto state = [&] {
    std::vector<float> all;
    for (Tensor flat : {t.parameters, t.moment1, t.moment2})
      all.insert(all.end(), flat.as<float>(), flat.as<float>() + t.size());
    return all;
  };
  EXPECT_TRUE(std::isfinite(optimizer.update(2).value()));
  const std::vector<float> before = state();
  t.gradients.as<float>()[t.size() - 1] = NAN;
  EXPECT_FALSE(std::isfinite(optimizer.update(3).value()));
  EXPECT_EQ(state(), before);
  fill(t, t.gradients);
  EXPECT_TRUE(std::isfinite(optimizer.update(4).value()));  // nor does a good step after it
  EXPECT_EQ(state(), before);
}

}  // namespace
}  // namespace drover
