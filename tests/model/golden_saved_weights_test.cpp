// Adapters that change more than the blocks' linears: factors of the embedding and of the head, weights of whole
// modules in place of the base's. What they compute is what PEFT computes, merged and not; on a model whose head is
// tied to the embedding too, where each of the two may change alone.
#include "kernels/cpu/cpu_backend.h"
#include "model/base_weights.h"
#include "model/files/safetensors_writer.h"
#include "tests/base/scratch_directory.h"
#include "tests/model/golden.h"
#include "trainer/export/adapter_effect.h"
#include "trainer/export/adapter_targets.h"
#include "trainer/export/merge.h"

namespace drover::golden {
namespace {

constexpr double kLogitBound = 1e-4;  // absolute, fp32

// A model of models.json as a directory, in fp32.
class OnDisk {
 public:
  explicit OnDisk(const std::string& name) : model_(name) {
    fs::create_directories(path());
    const Json all = json("models.json");
    for (const Json& m : all.at("models")) {
      if (m.at("name") == name) write_text(path() / "config.json", m.at("config").dump());
    }
    std::vector<TensorSpec> specs;
    for (const ParamSpec& spec : weight_table(model_.config))
      specs.push_back({spec.name, StoredType::f32, shape_of(spec)});
    SafetensorsWriter writer(path() / "model.safetensors", specs);
    DrawnWeights weights = model_.weights();
    for (const TensorSpec& tensor : writer.order()) {
      for (const ParamSpec& spec : weight_table(model_.config)) {
        if (spec.name != tensor.name) continue;
        std::vector<float> values(static_cast<size_t>(spec.rows * spec.cols));
        weights.read(spec, 0, 0, matrix(values.data(), spec.rows, spec.cols));
        writer.write(spec.name, values.data(), tensor.bytes());
      }
    }
    writer.commit();
  }
  fs::path path() const { return scratch_ / "model"; }
  const Model& model() const { return model_; }
  fs::path next_to(const std::string& name) const { return scratch_ / name; }

 private:
  static std::vector<int64_t> shape_of(const ParamSpec& spec) {
    return spec.cols == 1 ? std::vector<int64_t>{spec.rows} : std::vector<int64_t>{spec.rows, spec.cols};
  }
  Model model_;
  ScratchDirectory scratch_;
};

fs::path adapter_of(const std::string& name) { return directory() / "adapters" / name; }

std::vector<float> logits(const fs::path& model, const std::optional<fs::path>& adapter, const Json& expected) {
  ModelDirectory directory(model);
  if (!adapter) {
    BaseWeights base(directory);
    return Runner(base.config(), base, DType::f32).logits(expected.at("tokens"), expected.at("positions"));
  }
  BaseWeights base(directory, AdapterFile(*adapter));
  return Runner(base.config(), base, DType::f32, adapter).logits(expected.at("tokens"), expected.at("positions"));
}

void merge_into(const OnDisk& model, const AdapterFile& adapter, const fs::path& out) {
  ModelDirectory directory(model.path());
  BaseWeights base(directory, adapter);
  merge({adapter.config(), [&](const std::string& name) { return adapter.read(name); }}, base, out,
        *make_cpu_backend(1), {}, [](const fs::path&, MergeReport&) {});
}

TEST(GoldenSavedWeights, ComputeWhatPeftComputes) {
  for (const char* name : {"tied-saved", "tied-head", "tiny-head"}) {
    SCOPED_TRACE(name);
    const Json expected = json(std::string(name) + ".json");
    const OnDisk model(expected.at("model"));
    const std::vector<float> got = logits(model.path(), adapter_of(name), expected);
    EXPECT_LE(largest_difference(got, Tensors(std::string(name) + ".safetensors").at("logits.fp32")), kLogitBound);
    EXPECT_GE(largest_difference(got, logits(model.path(), {}, expected)), 100 * kLogitBound);
  }
}

TEST(GoldenSavedWeights, MergedTheyComputeTheSame) {
  for (const char* name : {"tied-saved", "tied-head", "tiny-head", "tied-all"}) {
    SCOPED_TRACE(name);
    const Json expected = json(std::string(name) + ".json");
    const OnDisk model(expected.at("model"));
    const fs::path merged = model.next_to("merged");
    merge_into(model, AdapterFile(adapter_of(name)), merged);
    const std::vector<float> got = logits(merged, {}, expected);
    EXPECT_LE(largest_difference(got, Tensors(std::string(name) + ".safetensors").at("logits.fp32")), kLogitBound);
    EXPECT_EQ(ModelDirectory(merged).config().tied_head, std::string(name) == "tied-all");
  }
}

TEST(GoldenSavedWeights, WhatPeftSavedUnchangedIsTheBase) {
  const OnDisk tied("tied"), tiny("tiny");
  ModelDirectory tied_base(tied.path()), tiny_base(tiny.path());
  EXPECT_EQ(AdapterFile(adapter_of("tiny-head")).weights(), std::vector<std::string>{"lm_head.weight"});
  EXPECT_TRUE(keeps_base(AdapterFile(adapter_of("tiny-head")), tiny_base));
  EXPECT_TRUE(keeps_base(AdapterFile(adapter_of("tied-head")), tied_base));
  EXPECT_TRUE(keeps_base(AdapterFile(adapter_of("tied-all")), tied_base));
  EXPECT_FALSE(keeps_base(AdapterFile(adapter_of("tied-saved")), tied_base));
  EXPECT_FALSE(keeps_base(AdapterFile(adapter_of("tiny-head")), tied_base));  // another model's head
}

// An adapter like one that PEFT saved, with some of its tensors changed or left out, and more targets or modules.
fs::path changed(const OnDisk& model, const std::string& name, const std::function<void(Adapter&)>& change) {
  Adapter adapter = read_adapter(adapter_of(name));
  change(adapter);
  const fs::path out = model.next_to("changed");
  write_adapter(
      out, adapter.config, shapes_of(adapter.matrices),
      [&](const std::string& tensor) { return adapter.matrices.at(tensor); }, DType::f32);
  return out;
}

void lengthen(AdapterMatrix& m, int64_t rows) {
  for (; rows > 0; --rows, ++m.rows) m.values.insert(m.values.end(), static_cast<size_t>(m.cols), 0.125f);
}

TEST(GoldenSavedWeights, ALongerVocabularyIsTheAdaptersOwn) {
  const Json expected = json("tied-head.json");
  const OnDisk model("tied");
  const std::string head = "lm_head.weight", embedding = "model.embed_tokens.weight";
  const auto longer = [&](Adapter& adapter) {  // as PEFT saves it after resize_token_embeddings
    adapter.config.target_modules = AdapterConfig::Names{"v_proj"};
    adapter.matrices.erase("lm_head.lora_A"), adapter.matrices.erase("lm_head.lora_B");
    lengthen(adapter.matrices.at(head), 3);
    adapter.matrices[embedding] = adapter.matrices.at(head);
  };
  const fs::path adapter = changed(model, "tied-head", longer);
  ModelDirectory directory(model.path());
  const ModelConfig config = BaseWeights(directory, AdapterFile(adapter)).config();
  EXPECT_EQ(config.vocab, 203);
  const std::vector<float> before = logits(model.path(), adapter, expected);
  merge_into(model, AdapterFile(adapter), model.next_to("merged"));
  EXPECT_EQ(ModelDirectory(model.next_to("merged")).config().vocab, 203);
  EXPECT_LE(largest_difference(logits(model.next_to("merged"), {}, expected), before), kLogitBound);

  const OnDisk untied("tiny");  // its head would be too short
  ModelDirectory untied_directory(untied.path());
  const fs::path alone = changed(untied, "tiny-head", [&](Adapter& a) {
    a.config.target_modules = AdapterConfig::Names{"q_proj", "down_proj"};
    a.matrices.erase("lm_head.lora_A"), a.matrices.erase("lm_head.lora_B");
    a.matrices[embedding] = a.matrices.at(head);
    a.matrices.erase(head);
    lengthen(a.matrices.at(embedding), 3);
  });
  expect_error(Fault::bad_data, {"326 tokens", "323", "save_embedding_layers"},
               [&] { BaseWeights(untied_directory, AdapterFile(alone)); });
}

TEST(GoldenSavedWeights, WhatDoesNotFitIsNamed) {
  const OnDisk model("tied");
  ModelDirectory directory(model.path());
  const auto refused = [&](std::vector<std::string> words, const std::function<void(Adapter&)>& change) {
    SCOPED_TRACE(words.front());
    expect_error(Fault::bad_data, std::move(words),
                 [&] { BaseWeights(directory, AdapterFile(changed(model, "tied-saved", change))); });
  };
  refused({"model.norm.weight", "does not hold"}, [](Adapter& a) { a.matrices.erase("model.norm.weight"); });
  refused({"model.norm.weight", "[95, 1]", "[96, 1]"}, [](Adapter& a) {
    a.matrices.at("model.norm.weight").rows = 95, a.matrices.at("model.norm.weight").values.resize(95);
  });
  refused({"model.layers.0.input_layernorm.weight", "modules_to_save"}, [](Adapter& a) {
    a.config.modules_to_save = {"lm_head", "model.norm"};
  });
  refused({"model.layers.7.input_layernorm.weight", "no"},
          [](Adapter& a) { a.matrices["model.layers.7.input_layernorm.weight"] = a.matrices.at("model.norm.weight"); });
  refused({"lora_embedding_A", "rank 5"}, [](Adapter& a) { a.config.r = 5, a.config.rank_pattern = {{"o_proj", 3}}; });
  refused({"embed_tokens.lora_embedding_A", "no lora_B"},
          [](Adapter& a) { a.matrices.erase("model.embed_tokens.lora_B"); });
}

TEST(GoldenSavedWeights, OtherProgramsAdaptersTakeNone) {
  for (const char* name : {"tied-saved", "tied-head"}) {
    const AdapterFile file(adapter_of(name));
    const AdapterForm form{file.config(), file.shapes(), [&](const std::string& tensor) { return file.read(tensor); }};
    expect_error(Fault::bad_data, {"vLLM takes no ", "export --merged"}, [&] { for_vllm(form); });
    const OnDisk model("tied");
    expect_error(Fault::bad_data, {"llama.cpp takes no ", "export --merged"},
                 [&] { write_for_llamacpp(form, model.model().config, model.next_to("a.gguf")); });
  }
  const OnDisk base("tied"), tiny("tiny");
  EXPECT_GT(effect_of(AdapterFile(adapter_of("tied-saved")), base.path()), 0);
  const fs::path zero = changed(tiny, "tiny-head", [](Adapter& a) {
    for (auto& [name, m] : a.matrices) {
      if (name.ends_with("lora_B")) std::ranges::fill(m.values, 0.0f);
    }
  });
  expect_error(Fault::bad_data, {"no effect"}, [&] { effect_of(AdapterFile(zero), tiny.path()); });
  EXPECT_NE(loads_in(AdapterFile(adapter_of("tied-head")).config()).find("take no lm_head"), std::string::npos);
}

}  // namespace
}  // namespace drover::golden
