// AdamW against torch.optim.AdamW, and learning rates against transformers' schedules.
#include "kernels/cpu/cpu_backend.h"
#include "optim/learning_rate.h"
#include "tests/model/golden.h"

namespace drover::golden {
namespace {

TEST(GoldenOptimizer, AdamWStepsAsPyTorchDoes) {
  const Json optim = json("optim.json");
  const Json& golden = optim.at("adamw").at("fp32");
  auto backend = make_cpu_backend(1);
  Arena arena("optimizer", backend->memory(), 1 << 16);
  const int64_t n = static_cast<int64_t>(golden.at("start").size());
  Tensor p = arena.tensor(n, 1, DType::f32), g = arena.tensor(n, 1, DType::f32), m = arena.tensor(n, 1, DType::f32),
         v = arena.tensor(n, 1, DType::f32);
  Tensor factor = arena.tensor(1, 1, DType::f32);
  const float one = 1;
  backend->upload(&one, factor);
  backend->upload(golden.at("start").get<std::vector<float>>().data(), p);
  backend->zero(m);
  backend->zero(v);
  AdamW settings{.learning_rate = golden.at("learning_rate"),
                 .beta1 = golden.at("betas").at(0),
                 .beta2 = golden.at("betas").at(1),
                 .eps = golden.at("eps"),
                 .weight_decay = golden.at("weight_decay"),
                 .step = 0};
  for (const Json& step : golden.at("steps")) {
    ++settings.step;
    backend->upload(step.at("gradient").get<std::vector<float>>().data(), g);
    backend->adamw(settings, factor, g, p, m, v);
    const auto expect_near = [&](const char* key, Tensor tensor, double relative, double absolute) {
      std::vector<float> got(static_cast<size_t>(n));
      backend->download(tensor, got.data());
      const std::vector<float> expected = step.at(key);
      for (size_t i = 0; i < got.size(); ++i) {
        EXPECT_NEAR(got[i], expected[i], relative * std::abs(expected[i]) + absolute)
            << key << " " << i << " after step " << settings.step;
      }
    };
    expect_near("value", p, 1e-6, 1e-6 * settings.learning_rate);
    expect_near("first_moment", m, 1e-6, 0);
    expect_near("second_moment", v, 1e-6, 0);
  }
}

TEST(GoldenOptimizer, RatesAreTransformers) {
  const Json golden = json("optim.json");
  ASSERT_EQ(golden.at("schedules").size(), 9u);
  for (const Json& s : golden.at("schedules")) {
    const std::string name = s.at("schedule");
    const LearningRateShape shape = name == "constant" ? LearningRateShape::constant
                                    : name == "linear" ? LearningRateShape::linear
                                                       : LearningRateShape::cosine;
    const LearningRate rate{shape, s.at("learning_rate"), s.at("warmup_steps"), s.at("steps")};
    const std::vector<double> values = s.at("values");
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_NEAR(rate.at(static_cast<int64_t>(i)), values[i], 1e-17)
          << name << ", " << rate.warmup_steps << " warm-up steps, step " << i;
    }
  }
}

}  // namespace
}  // namespace drover::golden
