// LoRA gradients and a 20-step training curve against PyTorch and PEFT, from adapters that PEFT saved.
#include "tests/model/golden_training.h"

#include <algorithm>

namespace drover::golden {
namespace {

// Of one of the adapters in tests/golden/adapters.
Trainer trainer_of(const std::string& model_name, const std::string& adapter_name, DType dtype, bool recompute = false,
                   const OptimizerSettings& optimizer = {}) {
  const Model model(model_name);
  const fs::path adapter = directory() / "adapters" / adapter_name;
  EngineSettings s;
  s.model = model.config;
  s.adapter = adapter_layout_of(s.model, adapter_config_in(adapter));
  s.dtype = dtype;
  s.recompute = recompute;
  s.optimizer = optimizer;
  DrawnWeights weights = model.weights();
  Trainer trainer(s, weights);
  load_adapter(adapter, s.model, trainer.adapter());
  return trainer;
}

struct Case {
  std::string adapter, model;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.adapter; }

class GoldenGradients : public testing::TestWithParam<Case> {
 protected:
  const std::string& adapter() const { return GetParam().adapter; }
  Json expected_ = json(GetParam().adapter + ".json");
  std::vector<Json> documents_ = expected_.at("batch");
};

// The two documents packed into one micro-batch, and one micro-batch each.
TEST_P(GoldenGradients, EqualPyTorchInFp32) {
  const Tensors expected(adapter() + ".safetensors");
  for (bool packed : {true, false}) {
    SCOPED_TRACE(packed ? "packed" : "separate");
    Trainer trainer = trainer_of(GetParam().model, adapter(), DType::f32, !packed);
    const Batch batch = packed ? batch_of({micro_batch(documents_, 0)})
                               : batch_of({micro_batch({documents_[0]}, 0), micro_batch({documents_[1]}, 1)});
    EXPECT_EQ(batch.trained_tokens, expected_.at("trained_tokens").get<int64_t>());
    const double loss = trainer.engine().accumulate_gradients(batch, 1);
    EXPECT_NEAR(loss, expected_.at("loss").at("fp64").get<double>(), 1e-6 * loss);
    const auto got = trainer.named(trainer.adapter().gradients);
    EXPECT_EQ(got.size(), expected_.at("shapes").size());
    for (const auto& [name, gradient] : got) {
      const std::vector<float> exact = expected.at("grad.fp64/" + name);
      ASSERT_GT(norm(exact), 0) << name;
      // PyTorch's own fp32 gradients are up to 7e-6 from double.
      EXPECT_LE(distance(gradient, exact), 1e-5 * norm(exact)) << name;
    }
  }
}

TEST_P(GoldenGradients, AreAsCloseToDoubleInBf16) {
  const Tensors expected(adapter() + ".safetensors");
  Trainer trainer = trainer_of(GetParam().model, adapter(), DType::bf16);
  trainer.engine().accumulate_gradients(batch_of({micro_batch(documents_, 0)}), 1);
  double ours = 0, theirs = 0;  // Σ over tensors of (relative error)²: one tensor alone is too small a sample
  for (const auto& [name, gradient] : trainer.named(trainer.adapter().gradients)) {
    const std::vector<float> exact = expected.at("grad.fp64/" + name);
    ours += std::pow(distance(gradient, exact) / norm(exact), 2);
    theirs += std::pow(distance(expected.at("grad.bf16/" + name), exact) / norm(exact), 2);
  }
  EXPECT_GT(theirs, 0);
  EXPECT_LE(std::sqrt(ours), 1.2 * std::sqrt(theirs)) << std::sqrt(ours / theirs) << " times PyTorch's error";
}

INSTANTIATE_TEST_SUITE_P(All, GoldenGradients,
                         testing::Values(Case{"tiny-all", "tiny"}, Case{"tied-all", "tied"},
                                         Case{"tiny-patterns", "tiny"}, Case{"tiny-regex", "tiny"},
                                         Case{"tiny-head", "tiny"}, Case{"tied-head", "tied"}),
                         [](const auto& info) {
                           std::string name = info.param.adapter;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(GoldenDocuments, AreDrawnAlike) {
  const Model model("tiny");
  const Json curve = json("curve.json");
  for (const Json& document : curve.at("documents")) {
    const std::vector<int32_t> tokens = document.at("tokens"), labels = document.at("labels");
    const int64_t lengths[] = {static_cast<int64_t>(tokens.size())};
    const MicroBatch m = made_up_micro_batch(model.seed, lengths, document.at("document"), model.config.vocab, 0);
    EXPECT_EQ(m.tokens, tokens);
    EXPECT_EQ(m.labels, labels);
  }
}

// The documents and micro-batches of curve.json by any optimizer.
Curve train(const Json& golden, DType dtype, const OptimizerSettings& optimizer) {
  Trainer trainer = trainer_of(golden.at("model"), golden.at("adapter"), dtype, false, optimizer);
  return train(golden, trainer);
}

Curve train(const Json& golden, DType dtype) {
  OptimizerSettings optimizer = optimizer_of(golden);
  optimizer.weight_decay = golden.at("weight_decay");
  return train(golden, dtype, optimizer);
}

TEST(GoldenCurve, EqualsPyTorchInFp32) {
  const Json golden = json("curve.json");
  ASSERT_EQ(golden.at("schedule"), "linear");
  ASSERT_GE(golden.at("clipped_steps").size(), 2u);
  const Curve curve = train(golden, DType::f32);
  const LearningRate rate{LearningRateShape::linear, golden.at("learning_rate"), golden.at("warmup_steps"),
                          golden.at("steps")};
  for (const char* dtype : {"fp32", "fp64"}) {
    const Json& expected = golden.at("curves").at(dtype);
    ASSERT_EQ(expected.size(), curve.steps.size());
    for (size_t i = 0; i < curve.steps.size(); ++i) {
      const double loss = expected[i].at("loss"), grad_norm = expected[i].at("grad_norm");
      EXPECT_NEAR(curve.steps[i].loss, loss, 1e-5 * loss) << dtype << ", step " << i + 1;
      EXPECT_NEAR(curve.steps[i].grad_norm, grad_norm, 1e-4 * grad_norm) << dtype << ", step " << i + 1;
      EXPECT_DOUBLE_EQ(rate.at(static_cast<int64_t>(i)), expected[i].at("learning_rate").get<double>())
          << "step " << i + 1;
    }
  }
  const Tensors expected("curve.safetensors");
  for (const auto& [name, values] : curve.last) {
    const std::vector<float> exact = expected.at("final.fp64/" + name);
    EXPECT_LE(distance(values, exact), 1e-4 * norm(exact)) << name;
  }
}

TEST(GoldenCurve, IsAsCloseToDoubleInBf16) {
  const Json golden = json("curve.json");
  const Curve curve = train(golden, DType::bf16);
  double ours = 0, theirs = 0;
  for (size_t i = 0; i < curve.steps.size(); ++i) {
    const double exact = golden.at("curves").at("fp64").at(i).at("loss");
    ours += std::pow(curve.steps[i].loss / exact - 1, 2);
    theirs += std::pow(golden.at("curves").at("bf16").at(i).at("loss").get<double>() / exact - 1, 2);
  }
  EXPECT_LE(std::sqrt(ours), 1.2 * std::sqrt(theirs)) << std::sqrt(ours / theirs) << " times PyTorch's error";
}

// Every setting of the optimizer is seen in the losses.
TEST(GoldenCurve, MistakesMoveTheLosses) {
  const Json golden = json("curve.json");
  std::vector<std::pair<std::string, Json>> mistakes;
  for (const auto& [path, value] : std::vector<std::pair<const char*, double>>{{"/max_grad_norm", 0},
                                                                               {"/weight_decay", 0},
                                                                               {"/betas/0", 0.8},
                                                                               {"/betas/1", 0.99},
                                                                               {"/eps", 1e-4},
                                                                               {"/learning_rate", 4.99e-3}}) {
    Json changed = golden;
    changed[Json::json_pointer(path)] = value;
    mistakes.emplace_back(path, changed);
  }
  mistakes.emplace_back("no warm-up", golden).second["warmup_steps"] = 0;
  mistakes.emplace_back("the first micro-batch only", golden);
  for (Json& step : mistakes.back().second["plan"]) step.erase(1);
  mistakes.emplace_back("another scale", golden).second["adapter"] = "tiny-patterns";
  for (const auto& [name, changed] : mistakes) {
    const Curve curve = train(changed, DType::f32);
    double worst = 0;
    for (size_t i = 0; i < curve.steps.size(); ++i) {
      worst = std::max(
          worst, std::abs(curve.steps[i].loss / golden.at("curves").at("fp64").at(i).at("loss").get<double>() - 1));
    }
    EXPECT_GE(worst, 1e-4) << name;
  }
}

// PEFT's create_loraplus_optimizer, without and with weight decay, which LoRA+ scales with B's rate.
TEST(GoldenLoraPlus, EqualsPeftInFp32) {
  const Json golden = json("lora_plus.json"), data = json("curve.json");
  ASSERT_GE(golden.at("cases").size(), 2u);
  ASSERT_GE(golden.at("ratio").get<double>(), 4);
  const auto worst = [](const Curve& curve, const Json& expected, const char* key, auto of) {
    double error = 0;
    for (size_t i = 0; i < curve.steps.size(); ++i) {
      const double value = expected.at(i).at(key);
      error = std::max(error, std::abs(of(curve.steps[i]) - value) / value);
    }
    return error;
  };
  const auto loss = [](const StepResult& step) { return step.loss; };
  const auto grad_norm = [](const StepResult& step) { return step.grad_norm; };
  for (const Json& one : golden.at("cases")) {
    OptimizerSettings optimizer = optimizer_of(golden);
    optimizer.weight_decay = one.at("weight_decay");
    const Curve ignored = train(data, DType::f32, optimizer);
    optimizer.group_rates = {1, golden.at("ratio")};
    const Curve curve = train(data, DType::f32, optimizer);
    for (const char* dtype : {"fp32", "fp64"}) {
      const Json& expected = one.at("curves").at(dtype);
      ASSERT_EQ(expected.size(), curve.steps.size());
      EXPECT_LE(worst(curve, expected, "loss", loss), 1e-5) << dtype;
      EXPECT_LE(worst(curve, expected, "grad_norm", grad_norm), 1e-4) << dtype;
      EXPECT_GT(worst(ignored, expected, "loss", loss), 0.1) << "one rate for A and B would be noticed";
    }
  }
  const auto& cases = golden.at("cases");
  const auto last = [&](size_t i) { return cases.at(i).at("curves").at("fp64").back().at("loss").get<double>(); };
  EXPECT_GT(std::abs(last(0) / last(1) - 1), 1e-3) << "weight decay shows in the curve";
}

}  // namespace
}  // namespace drover::golden
