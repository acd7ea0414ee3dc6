// What other programs compute with the adapters that are written for them is what PEFT computes.
#include "trainer/export/adapter_targets.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/files/factor.h"
#include "model/files/gguf.h"
#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

using Weight = std::vector<double>;  // scale·B·A, row-major

Weight product(const AdapterMatrix& a, const AdapterMatrix& b, double scale) {
  Weight w(static_cast<size_t>(b.rows * a.cols));
  for (int64_t r = 0; r < b.rows; ++r) {
    for (int64_t c = 0; c < a.cols; ++c) {
      for (int64_t k = 0; k < a.rows; ++k) {
        w[static_cast<size_t>(r * a.cols + c)] +=
            scale * b.values[static_cast<size_t>(r * b.cols + k)] * a.values[static_cast<size_t>(k * a.cols + c)];
      }
    }
  }
  return w;
}

void expect_close(const Weight& ours, const Weight& theirs, const std::string& what) {
  ASSERT_EQ(ours.size(), theirs.size()) << what;
  for (size_t i = 0; i < ours.size(); ++i)
    ASSERT_NEAR(ours[i], theirs[i], 1e-6 * std::abs(ours[i]) + 1e-9) << what << " " << i;
}

// Two layers with linears of several ranks and scales; q and k of heads of 4 rows.
AdapterForm made_up(bool use_rslora) {
  AdapterForm form;
  form.config.r = 4;
  form.config.alpha = 12;
  form.config.use_rslora = use_rslora;
  form.config.target_modules = AdapterConfig::Names{"q_proj", "k_proj", "o_proj", "down_proj"};
  form.config.rank_pattern = {{"down_proj", 9}, {"1.self_attn.q_proj", 2}};
  form.config.alpha_pattern = {{"o_proj", 3}};
  const AdapterMatcher matcher(form.config);
  for (int layer = 0; layer < 2; ++layer) {
    for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.down_proj"}) {
      const std::string path = fmt::format("model.layers.{}.{}", layer, name);
      const int64_t r = matcher.match(path)->r;
      form.shapes[path + ".lora_A"] = {r, 6};
      form.shapes[path + ".lora_B"] = {8, r};
    }
  }
  form.values = [shapes = form.shapes](const std::string& factor) {
    const auto [rows, cols] = shapes.at(factor);
    AdapterMatrix m{rows, cols, {}};
    for (int64_t i = 0; i < rows * cols; ++i)
      m.values.push_back(static_cast<float>((i * 31 + static_cast<int64_t>(factor.size()) * 7) % 17 - 8) / 16);
    return m;
  };
  return form;
}

std::vector<std::string> paths_of(const AdapterForm& form) {
  std::vector<std::string> paths;
  for (const auto& [factor, shape] : form.shapes) {
    if (factor_of(factor) == Factor::a) paths.push_back(factor.substr(0, factor.rfind('.')));
  }
  return paths;
}

Weight weight_of(const AdapterForm& form, const std::string& path) {
  return product(form.values(path + ".lora_A"), form.values(path + ".lora_B"),
                 AdapterMatcher(form.config).match(path)->scale);
}

TEST(AdapterTargets, VllmComputesTheSameWithOneRankAndScale) {
  for (const bool use_rslora : {false, true}) {
    const AdapterForm ours = made_up(use_rslora), theirs = for_vllm(ours);
    EXPECT_EQ(theirs.config.r, 16);  // the next above 9
    EXPECT_FALSE(theirs.config.use_rslora);
    EXPECT_TRUE(theirs.config.rank_pattern.empty() && theirs.config.alpha_pattern.empty());
    for (const auto& [factor, shape] : theirs.shapes)
      EXPECT_EQ(factor_of(factor) == Factor::a ? shape.first : shape.second, 16) << factor;
    for (const std::string& path : paths_of(ours)) expect_close(weight_of(ours, path), weight_of(theirs, path), path);
  }
  AdapterForm large = made_up(false);
  large.shapes["model.layers.0.self_attn.q_proj.lora_A"].first = 513;
  EXPECT_THROW(for_vllm(large), Error);
}

TEST(AdapterTargets, SaysWhoLoadsIt) {
  AdapterConfig config;
  config.r = 24;
  EXPECT_EQ(loads_in(config),
            "the adapter loads in PEFT, vLLM (--max-lora-rank 32), llama.cpp (export --target llamacpp), TensorRT-LLM "
            "(max_lora_rank 24)");
  config.rank_pattern = {{"q_proj", 65}};
  EXPECT_NE(loads_in(config).find("vLLM (export --target vllm, --max-lora-rank 128)"), std::string::npos);
  EXPECT_NE(loads_in(config).find("not known whether in TensorRT-LLM"), std::string::npos);
  config.r = 600;
  EXPECT_NE(loads_in(config).find("not in vLLM (rank 600)"), std::string::npos);
}

TEST(AdapterTargets, LlamacppComputesTheSameFromOneFile) {
  const std::map<std::string, std::string> names = {{"self_attn.q_proj", "attn_q"},
                                                    {"self_attn.k_proj", "attn_k"},
                                                    {"self_attn.o_proj", "attn_output"},
                                                    {"mlp.down_proj", "ffn_down"}};
  ModelConfig model;
  model.head_dim = 4;
  for (const bool use_rslora : {false, true}) {
    ScratchDirectory dir;
    const AdapterForm ours = made_up(use_rslora);
    write_for_llamacpp(ours, model, dir / "adapter.gguf");
    const GgufFile file(dir / "adapter.gguf");
    EXPECT_EQ(file.text("general.type"), "adapter");
    EXPECT_EQ(file.text("general.architecture"), "llama");
    EXPECT_EQ(file.text("adapter.type"), "lora");
    EXPECT_EQ(file.tensors().size(), 16u);
    const auto read = [&](const std::string& name) {
      const GgufTensor* t = file.find(name);
      AdapterMatrix m{t->shape[0], t->shape[1], std::vector<float>(static_cast<size_t>(t->size()))};
      dequantise(*t, 0, t->size(), m.values.data());
      return m;
    };
    for (const std::string& path : paths_of(ours)) {
      const std::string layer = path.substr(13, 1), linear = path.substr(15);
      const std::string name = "blk." + layer + "." + names.at(linear) + ".weight.lora_";
      const AdapterMatrix a = read(name + "a"), b = read(name + "b");
      Weight theirs = product(a, b, file.number("adapter.lora.alpha") / static_cast<double>(b.cols));
      if (linear == "self_attn.q_proj" || linear == "self_attn.k_proj") {  // rows 0, 2, 1, 3 of each head
        Weight back(theirs.size());
        for (int64_t row = 0; row < 8; ++row) {
          const int64_t ours_row = row / 4 * 4 + (row % 4 == 1 ? 2 : row % 4 == 2 ? 1 : row % 4);
          std::copy_n(theirs.begin() + row * 6, 6, back.begin() + ours_row * 6);
        }
        theirs = back;
      }
      expect_close(weight_of(ours, path), theirs, path);
    }
  }
}

}  // namespace
}  // namespace drover
