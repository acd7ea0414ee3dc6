// Models on weights that stay quantised, against transformers, bitsandbytes and PEFT (tests/golden/quantised.py): the
// log-probabilities of a document by every layout, and QLoRA's training curve.
#include <algorithm>
#include <numeric>

#include "tests/files/quantised_files.h"
#include "tests/model/golden_training.h"

namespace drover::golden {
namespace {

const Json& quantised() {
  static const Json all = json("quantised.json");
  return all;
}

std::vector<double> expected_of(const std::string& layout) {
  for (const Json& row : quantised().at("layouts")) {
    if (row.at("name") == layout) return row.at("log_probabilities");
  }
  require(false, "quantised.json has the layout");
  return {};
}

// Of each token of the golden's document but the first, given those before.
std::vector<double> logprobs(const std::string& layout, WeightsAs as, DType dtype) {
  ModelDirectory model(golden_directory(layout));
  BaseWeights weights(model);
  const std::vector<int32_t> tokens = quantised().at("tokens");
  std::vector<int32_t> positions(tokens.size() - 1);
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<float> logits = Runner(weights.config(), weights, dtype, {}, {}, as).logits(tokens, positions);
  const size_t vocab = static_cast<size_t>(weights.config().vocab);
  std::vector<double> result;
  for (size_t i = 0; i < positions.size(); ++i) {
    const std::span<const float> row(logits.data() + i * vocab, vocab);
    const double largest = *std::ranges::max_element(row);
    double sum = 0;
    for (const float logit : row) sum += std::exp(logit - largest);
    result.push_back(row[static_cast<size_t>(tokens[i + 1])] - largest - std::log(sum));
  }
  return result;
}

double largest_gap(const std::vector<double>& x, const std::vector<double>& y) {
  require(x.size() == y.size() && !x.empty(), "as many log-probabilities");
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::abs(x[i] - y[i]));
  return worst;
}

double root_mean_square(const std::vector<double>& x, const std::vector<double>& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += std::pow(x[i] - y[i], 2);
  return std::sqrt(sum / static_cast<double>(x.size()));
}

class GoldenQuantised : public testing::TestWithParam<std::string> {};

TEST_P(GoldenQuantised, LogprobsAreThoseOfTransformersInFp32) {
  const std::vector<double> as_is = logprobs(GetParam(), WeightsAs::as_is, DType::f32);
  EXPECT_LE(largest_gap(as_is, expected_of(GetParam())), 1e-4);
  EXPECT_LE(largest_gap(as_is, logprobs(GetParam(), WeightsAs::dense, DType::f32)), 1e-5);
  EXPECT_GT(largest_gap(as_is, expected_of("dense")), 1e-2) << "that weights are quantised shows";
}

// Codes that are multiplied in bf16 may not be further from fp32 than the same weights in bf16, whose products are as
// many and are rounded alike.
TEST_P(GoldenQuantised, LogprobsAreAsCloseInBf16AsThoseOfPlainWeights) {
  const std::vector<double> exact = expected_of(GetParam());
  const double plain = root_mean_square(logprobs(GetParam(), WeightsAs::dense, DType::bf16), exact),
               codes = root_mean_square(logprobs(GetParam(), WeightsAs::as_is, DType::bf16), exact);
  EXPECT_GT(codes, 0);
  EXPECT_LE(codes, 1.2 * plain) << codes / plain << " times the error of plain weights, " << plain;
}

// What is quantised already becomes the other format from its values, and stays what it is in its own.
TEST_P(GoldenQuantised, OtherFormatsAreMadeOfTheValues) {
  const bool nf4 = GetParam().starts_with("nf4");
  const std::vector<double> as_is = logprobs(GetParam(), WeightsAs::as_is, DType::f32),
                            other = logprobs(GetParam(), nf4 ? WeightsAs::fp8 : WeightsAs::nf4, DType::f32);
  if (GetParam() != "fbgemm") {  // of which a part is plain
    EXPECT_EQ(logprobs(GetParam(), nf4 ? WeightsAs::nf4 : WeightsAs::fp8, DType::f32), as_is);
  }
  // As far from these values as the library's own are from plain ones.
  const double moved = root_mean_square(other, as_is),
               typical = root_mean_square(expected_of(nf4 ? "blocks" : "nf4-nested"), expected_of("dense"));
  EXPECT_GT(moved, 0.5 * typical);
  EXPECT_LT(moved, 2 * typical);
}

// A row alone and rows together are multiplied in different ways.
TEST_P(GoldenQuantised, CacheEqualsFullForward) {
  ModelDirectory model(golden_directory(GetParam()));
  BaseWeights weights(model);
  Runner runner(weights.config(), weights, DType::f32);
  expect_cache_equals_full_forward(runner, quantised().at("tokens"), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Layouts, GoldenQuantised, testing::ValuesIn(kLayouts), [](const auto& info) {
  std::string name = info.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

struct CurveCase {
  std::string layout, type;  // of NF4, and what its values are rounded to
};
void PrintTo(const CurveCase& c, std::ostream* out) { *out << c.layout << ' ' << c.type; }

// The golden's directory, whose quant_state names bf16, or the same that names another type.
class NamedType {
 public:
  explicit NamedType(const CurveCase& c) : changed_(c.layout) {
    for (auto& [name, tensor] : changed_.tensors) {
      if (!name.ends_with("bitsandbytes__nf4")) continue;
      Json state = parse_json(tensor.bytes, name);
      require(state.at("dtype") == "bfloat16", "the golden's weights are rounded to bf16");
      state["dtype"] = c.type;
      tensor = text_bytes(state.dump());
    }
  }
  const fs::path& directory() { return changed_.written(); }

 private:
  ChangedDirectory changed_;
};

Curve trained(const CurveCase& c, const Json& golden, WeightsAs as) {
  NamedType named(c);
  ModelDirectory model(named.directory());
  BaseWeights weights(model);
  EngineSettings s;
  s.model = weights.config();
  s.adapter = adapter_layout(s.model, [&](const std::string& path) -> std::optional<LowRankSpec> {
    if (path == "lm_head") return {};
    const int64_t r = golden.at("r");
    return LowRankSpec{r, golden.at("alpha").get<float>() / static_cast<float>(r)};
  });
  s.weights = as;
  s.stored = [&](const ParamSpec& spec) { return weights.scaling(spec); };
  s.optimizer = optimizer_of(golden);
  s.optimizer.weight_decay = golden.at("weight_decay");
  Trainer trainer(s, weights);
  trainer.adapter().load([&](const FactorSlice& f, float* values) {
    const double std_of = golden.at("std").at(f.factor == Factor::a ? "lora_A" : "lora_B");
    const float scale = static_cast<float>(std_of * std::sqrt(12.0));
    for (int64_t i = 0; i < f.size(); ++i) values[i] = drawn(golden.at("seed"), stored_name(f.name), i, 0, scale);
  });
  return train(golden, trainer);
}

class GoldenQlora : public testing::TestWithParam<CurveCase> {};

TEST_P(GoldenQlora, CurveEqualsPeftInFp32) {
  const Json golden = json("quantised_curve.json");
  ASSERT_EQ(golden.at("schedule"), "linear");
  const Curve curve = trained(GetParam(), golden, WeightsAs::as_is);
  for (const char* dtype : {"fp32", "fp64"}) {
    const Json& expected = golden.at("curves").at(GetParam().layout).at(GetParam().type).at(dtype);
    ASSERT_EQ(expected.size(), curve.steps.size());
    for (size_t i = 0; i < curve.steps.size(); ++i) {
      const double loss = expected[i].at("loss"), grad_norm = expected[i].at("grad_norm");
      EXPECT_NEAR(curve.steps[i].loss, loss, 1e-5 * loss) << dtype << ", step " << i + 1;
      EXPECT_NEAR(curve.steps[i].grad_norm, grad_norm, 1e-4 * grad_norm) << dtype << ", step " << i + 1;
    }
  }
  const Tensors expected("quantised_curve.safetensors");
  int compared = 0;
  for (const auto& [name, values] : curve.last) {
    if (name.find("q_proj") == std::string::npos && name.find("o_proj") == std::string::npos &&
        name.find("down_proj") == std::string::npos) {
      continue;
    }
    const std::vector<float> exact = expected.at(GetParam().layout + "/" + GetParam().type + "/" + name);
    EXPECT_LE(distance(values, exact), 1e-4 * norm(exact)) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 6);
}

INSTANTIATE_TEST_SUITE_P(Nf4, GoldenQlora,
                         testing::Values(CurveCase{"nf4-nested", "bfloat16"}, CurveCase{"nf4-nested", "float32"},
                                         CurveCase{"nf4-plain", "bfloat16"}, CurveCase{"nf4-plain", "float32"}),
                         [](const auto& info) {
                           std::string name = info.param.layout + "_" + info.param.type;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

// What bitsandbytes rounds, and what it does not, is another curve.
TEST(GoldenQloraTypes, RoundingToBf16Shows) {
  const Json golden = json("quantised_curve.json");
  const Curve curve = trained({"nf4-nested", "float32"}, golden, WeightsAs::as_is);
  const Json& rounded = golden.at("curves").at("nf4-nested").at("bfloat16").at("fp64");
  double worst = 0;
  for (size_t i = 0; i < curve.steps.size(); ++i)
    worst = std::max(worst, std::abs(curve.steps[i].loss / rounded[i].at("loss").get<double>() - 1));
  EXPECT_GT(worst, 1e-4);
}

}  // namespace
}  // namespace drover::golden
