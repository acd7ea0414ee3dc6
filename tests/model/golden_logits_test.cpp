// Logits and greedy continuations against transformers and PEFT; and that each ingredient of the model matters to them.
#include <algorithm>

#include "tests/model/golden.h"

namespace drover::golden {
namespace {

constexpr double kLogitBound = 1e-4;  // absolute, fp32

struct Case {
  std::string name, model;
  bool adapted = false;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class GoldenLogits : public testing::TestWithParam<Case> {
 protected:
  std::vector<float> logits(DType dtype) const {
    const Model model(GetParam().model);
    DrawnWeights weights = model.weights();
    std::optional<fs::path> adapter;
    if (GetParam().adapted) adapter = directory() / "adapters" / GetParam().name;
    const Json expected = json(GetParam().name + ".json");
    return Runner(model.config, weights, dtype, adapter).logits(expected.at("tokens"), expected.at("positions"));
  }
};

TEST_P(GoldenLogits, EqualTransformersInFp32) {
  const Tensors expected(GetParam().name + ".safetensors");
  const std::vector<float> got = logits(DType::f32);
  EXPECT_LE(largest_difference(got, expected.at("logits.fp32")), kLogitBound);
  EXPECT_LE(largest_difference(got, expected.at("logits.fp64")), kLogitBound);
  EXPECT_GE(norm(got), 100);
}

TEST_P(GoldenLogits, AreAsCloseToDoubleInBf16) {
  const Tensors expected(GetParam().name + ".safetensors");
  const std::vector<float> exact = expected.at("logits.fp64");
  const double theirs = distance(expected.at("logits.bf16"), exact), ours = distance(logits(DType::bf16), exact);
  EXPECT_GT(theirs, 0);
  EXPECT_LE(ours, 1.2 * theirs) << ours / theirs << " times transformers' error";
}

INSTANTIATE_TEST_SUITE_P(All, GoldenLogits,
                         testing::Values(Case{"tiny", "tiny"}, Case{"tied", "tied"}, Case{"tiny-all", "tiny", true},
                                         Case{"tied-all", "tied", true}, Case{"tiny-patterns", "tiny", true},
                                         Case{"tiny-regex", "tiny", true}, Case{"tiny-head", "tiny", true},
                                         Case{"tied-head", "tied", true}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

class GoldenDecoding : public testing::TestWithParam<std::string> {};

TEST_P(GoldenDecoding, GreedyIdsEqualTransformers) {
  const Model model(GetParam());
  DrawnWeights weights = model.weights();
  Runner runner(model.config, weights, DType::f32);
  const Json greedy = json(GetParam() + ".json").at("greedy");
  ASSERT_GE(greedy.at("min_top2_margin").get<double>(), 1e-3);
  const std::vector<int32_t> expected = greedy.at("ids");
  Batcher batcher(runner.decoder(), {});
  const Request request{.ids = greedy.at("prompt"), .max_tokens = static_cast<int64_t>(expected.size())};
  EXPECT_EQ(answer_all(batcher, {request}).front().ids, expected);
}

TEST_P(GoldenDecoding, CacheEqualsFullForward) {
  const Model model(GetParam());
  const std::optional<fs::path> adapter = directory() / "adapters" / (GetParam() + "-all");
  DrawnWeights weights = model.weights();
  Runner runner(model.config, weights, DType::f32, adapter);
  expect_cache_equals_full_forward(runner, json(GetParam() + ".json").at("tokens"), kLogitBound);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenDecoding, testing::Values("tiny", "tied"),
                         [](const auto& info) { return info.param; });

// --- each of these mistakes would be seen --------------------------------------------------------

struct Mistake {
  std::string name;
  std::function<void(ModelConfig&)> config = [](ModelConfig&) {};
  std::function<void(const ModelConfig&, const ParamSpec&, std::vector<float>&)> weights =
      [](const ModelConfig&, const ParamSpec&, std::vector<float>&) {};
};
void PrintTo(const Mistake& m, std::ostream* out) { *out << m.name; }

// Row r of the changed matrix is row from(r) of the true one.
void reorder_rows(const ParamSpec& spec, std::vector<float>& values, const std::function<int64_t(int64_t)>& from) {
  const std::vector<float> old = values;
  for (int64_t r = 0; r < spec.rows; ++r)
    std::copy_n(old.begin() + from(r) * spec.cols, spec.cols, values.begin() + r * spec.cols);
}
void reorder_columns(const ParamSpec& spec, std::vector<float>& values, const std::function<int64_t(int64_t)>& from) {
  const std::vector<float> old = values;
  for (int64_t r = 0; r < spec.rows; ++r) {
    for (int64_t c = 0; c < spec.cols; ++c)
      values[static_cast<size_t>(r * spec.cols + c)] = old[static_cast<size_t>(r * spec.cols + from(c))];
  }
}

std::vector<Mistake> mistakes() {
  std::vector<Mistake> all;
  all.push_back({.name = "no_rope_scaling", .config = [](ModelConfig& c) { c.rope_scaling.reset(); }});
  all.push_back({.name = "another_rope_theta", .config = [](ModelConfig& c) { c.rope_theta = 500000; }});
  all.push_back({.name = "attention_without_scale",
                 .weights = [](const ModelConfig& c, const ParamSpec& spec, std::vector<float>& values) {
                   if (!spec.name.ends_with("q_proj.weight")) return;
                   for (float& v : values) v *= std::sqrt(static_cast<float>(c.head_dim));
                 }});
  // Query head h reading key head h % K: heads put in such an order that h / (H/K) does just that, and back again
  // before Wo.
  all.push_back({.name = "interleaved_head_groups",
                 .weights = [](const ModelConfig& c, const ParamSpec& spec, std::vector<float>& values) {
                   const auto from = [&c](int64_t i) {
                     const int64_t group = c.heads / c.kv_heads, head = i / c.head_dim;
                     return (head % group * c.kv_heads + head / group) * c.head_dim + i % c.head_dim;
                   };
                   if (spec.name.ends_with("q_proj.weight")) reorder_rows(spec, values, from);
                   if (spec.name.ends_with("o_proj.weight")) reorder_columns(spec, values, from);
                 }});
  // Pairs (i, i+E/2) as Meta's files have them: side by side.
  all.push_back({.name = "interleaved_rope_rows",
                 .weights = [](const ModelConfig& c, const ParamSpec& spec, std::vector<float>& values) {
                   if (!spec.name.ends_with("q_proj.weight") && !spec.name.ends_with("k_proj.weight")) return;
                   const int64_t e = c.head_dim;
                   reorder_rows(spec, values, [e](int64_t r) { return r / e * e + r % e % 2 * (e / 2) + r % e / 2; });
                 }});
  for (const char* which : {"model.layers.1.input_layernorm.weight", "model.layers.2.post_attention_layernorm.weight",
                            "model.norm.weight"}) {
    std::string name = "ones_in_" + std::string(which);
    std::replace(name.begin(), name.end(), '.', '_');
    all.push_back(
        {.name = name, .weights = [which](const ModelConfig&, const ParamSpec& spec, std::vector<float>& values) {
           if (spec.name == which) std::fill(values.begin(), values.end(), 1.0f);
         }});
  }
  return all;
}

class GoldenMistakes : public testing::TestWithParam<Mistake> {};

TEST_P(GoldenMistakes, MoveTheLogits) {
  const Model model("tiny");
  ModelConfig config = model.config;
  GetParam().config(config);
  DrawnWeights weights = model.weights();
  ChangedWeights changed(
      weights, [&](const ParamSpec& spec, std::vector<float>& values) { GetParam().weights(config, spec, values); });
  const Json expected = json("tiny.json");
  const std::vector<float> got =
      Runner(config, changed, DType::f32).logits(expected.at("tokens"), expected.at("positions"));
  EXPECT_GE(largest_difference(got, Tensors("tiny.safetensors").at("logits.fp32")), 100 * kLogitBound);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenMistakes, testing::ValuesIn(mistakes()),
                         [](const auto& info) { return info.param.name; });

TEST(GoldenAdapters, AScaleOfOneMovesTheLogits) {
  const Model model("tiny");
  for (const char* name : {"tiny-all", "tiny-patterns", "tiny-regex"}) {
    const fs::path adapter = directory() / "adapters" / name;
    AdapterLayout layout = adapter_layout_of(model.config, adapter_config_in(adapter));
    for (auto& layer : layout) {
      for (auto& spec : layer) {
        if (spec) spec->scale = 1;
      }
    }
    DrawnWeights weights = model.weights();
    const Json expected = json(std::string(name) + ".json");
    const std::vector<float> got = Runner(model.config, weights, DType::f32, adapter, layout)
                                       .logits(expected.at("tokens"), expected.at("positions"));
    EXPECT_GE(largest_difference(got, Tensors(std::string(name) + ".safetensors").at("logits.fp32")), 100 * kLogitBound)
        << name;
  }
}

}  // namespace
}  // namespace drover::golden
