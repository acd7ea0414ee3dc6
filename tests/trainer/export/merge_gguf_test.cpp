// A merged model as one GGUF file: its weights, its tokenizer, and what is refused.
#include "trainer/export/merge_gguf.h"

#include <gtest/gtest.h>

#include "data/tokenizer.h"
#include "kernels/base/hash.h"
#include "kernels/base/json.h"
#include "kernels/count/count.h"
#include "kernels/cpu/cpu_backend.h"
#include "launch/tiny_model.h"
#include "model/files/import_gguf.h"
#include "model/weight_table.h"
#include "tests/base/scratch_directory.h"
#include "tests/files/made_up_gguf.h"

namespace drover {
namespace {

// A tiny model, an adapter of q, k and down, and what the file shall hold besides.
class MergeGguf : public testing::Test {
 protected:
  MergeGguf() {
    make_tiny_model(dir_ / "model", 1);
    config_.r = 2;
    config_.alpha = 4;
    config_.target_modules = AdapterConfig::Names{"q_proj", "k_proj", "down_proj"};
    texts_ = {.tokenizer = dir_ / "model", .chat_template = "{{ messages }}", .stops = {2}};
  }

  AdapterMatrix factor(const std::string& name) {
    const bool is_a = name.ends_with("lora_A");
    const std::vector<int64_t> shape = base().shape(name.substr(0, name.rfind('.')) + ".weight");
    AdapterMatrix m{is_a ? 2 : shape[0], is_a ? shape[1] : 2, {}};
    for (int64_t i = 0; i < m.rows * m.cols; ++i) m.values.push_back(size_ * static_cast<float>((i * 37) % 19 - 9));
    return m;
  }
  ModelDirectory& base() {
    if (!base_) base_.emplace(dir_ / "model");
    return *base_;
  }
  AdapterSource source() {
    return {config_, [this](const std::string& name) { return factor(name); }};
  }
  void write(GgufType type, Backend& backend) {
    BaseWeights weights(base());
    merge_to_gguf(source(), weights, dir_ / "m.gguf", type, backend, texts_);
  }
  GgufFile written(GgufType type = GgufType::bf16) {
    fs::remove(dir_ / "m.gguf");
    write(type, *backend_);
    return GgufFile(dir_ / "m.gguf");
  }
  void expect_refused(Fault fault, std::initializer_list<std::string> words, GgufType type = GgufType::bf16) {
    const auto entries = [&] { return std::distance(fs::directory_iterator(dir_.path()), fs::directory_iterator()); };
    const auto before = entries();
    expect_error(fault, words, [&] { write(type, *backend_); });
    EXPECT_EQ(entries(), before);
  }

  Json tokenizer_json() { return parse_json(read_text(dir_ / "model/tokenizer.json"), "tokenizer.json"); }
  // The model's tokenizer from here on, changed.
  void change_tokenizer(const std::function<void(Json&)>& change) {
    fs::create_directories(dir_ / "changed");
    Json json = tokenizer_json();
    change(json);
    write_text(dir_ / "changed/tokenizer.json", json.dump());
    fs::copy_file(dir_ / "model/tokenizer_config.json", dir_ / "changed/tokenizer_config.json",
                  fs::copy_options::overwrite_existing);
    texts_.tokenizer = dir_ / "changed";
  }

  ScratchDirectory dir_;
  AdapterConfig config_;
  ModelTexts texts_;
  float size_ = 0.02f;
  std::optional<ModelDirectory> base_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
};

TEST_F(MergeGguf, InBf16ItIsTheMergedDirectory) {
  written();
  BaseWeights weights(base());
  merge(source(), weights, dir_ / "merged", *backend_, {}, [](const fs::path&, MergeReport&) {});
  import_gguf(dir_ / "m.gguf", dir_ / "imported");
  ModelDirectory merged(dir_ / "merged"), imported(dir_ / "imported");
  EXPECT_EQ(merged.config(), imported.config());
  for (const ParamSpec& spec : weight_table(merged.config())) {
    std::vector<float> a(static_cast<size_t>(spec.rows * spec.cols)), b(a.size());
    merged.read(spec.name, 0, spec.rows, 0, spec.cols, DType::f32, a.data());
    imported.read(spec.name, 0, spec.rows, 0, spec.cols, DType::f32, b.data());
    EXPECT_EQ(a, b) << spec.name;
    EXPECT_EQ(imported.dtype(spec.name), StoredType::bf16) << spec.name;
  }
}

bool holds(const GgufFile& file, const std::string& key, const Json& value) {
  if (!file.has(key)) return false;
  if (value.is_boolean()) return file.flag(key, !value.get<bool>()) == value.get<bool>();
  if (value.is_number_integer()) return file.integer(key) == value.get<int64_t>();
  if (value.is_number()) return file.number(key) == value.get<double>();
  if (value.is_string()) return file.text(key) == value.get<std::string>();
  if (value.at(0).is_string()) return file.texts(key) == value.get<std::vector<std::string>>();
  return file.integers(key) == value.get<std::vector<int64_t>>();
}

TEST_F(MergeGguf, WithoutEffectItIsWhatLlamacppsConverterMakes) {
  size_ = 0;
  texts_.chat_template = parse_json(read_text(dir_ / "model/tokenizer_config.json"), "settings")["chat_template"];
  const fs::path path = fs::path(DROVER_SOURCE_DIR) / "tests/golden/gguf_model.json";
  const Json golden = parse_json(read_text(path), path.string());
  EXPECT_EQ(golden.size(), 3u);
  for (const auto& [outtype, expected] : golden.items()) {
    const GgufFile file = written(gguf_outtype(outtype).value());
    for (const auto& [key, value] : expected["keys"].items()) EXPECT_TRUE(holds(file, key, value)) << outtype << key;
    EXPECT_EQ(file.tensors().size(), expected["tensors"].size());
    for (const auto& [name, tensor] : expected["tensors"].items()) {
      const GgufTensor* found = file.find(name);
      ASSERT_NE(found, nullptr) << name;
      EXPECT_EQ(static_cast<int>(found->type), tensor["type"]) << outtype << name;
      EXPECT_EQ(found->shape, tensor["shape"].get<std::vector<int64_t>>()) << name;
      if (!tensor.contains("values")) {
        const std::string_view bytes(reinterpret_cast<const char*>(found->bytes.data()), found->bytes.size());
        EXPECT_EQ(sha256_hex(bytes), tensor["sha256"]) << outtype << name;
        continue;
      }
      std::vector<float> values(static_cast<size_t>(found->size()));  // theirs are of fp32 arithmetic
      dequantise(*found, 0, found->size(), values.data());
      for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], tensor["values"][i].get<float>(), 1e-6);
    }
  }
}

TEST_F(MergeGguf, InQ8EveryNumberIsWithinHalfAStep) {
  const GgufFile file = written(GgufType::q8_0);
  EXPECT_EQ(file.integer("general.file_type"), 7);
  EXPECT_EQ(file.integer("general.quantization_version"), 2);
  EXPECT_EQ(file.find("blk.0.attn_norm.weight")->type, GgufType::f32);
  EXPECT_EQ(file.find("token_embd.weight")->type, GgufType::q8_0);
  EXPECT_EQ(file.find("output.weight")->type, GgufType::q8_0);
  const GgufTensor& down = *file.find("blk.2.ffn_down.weight");
  const std::string name = "model.layers.2.mlp.down_proj";
  const AdapterMatrix a = factor(name + ".lora_A"), b = factor(name + ".lora_B");
  std::vector<float> before(static_cast<size_t>(down.size())), after(before.size());
  base().read(name + ".weight", 0, down.shape[0], 0, down.shape[1], DType::f32, before.data());
  dequantise(down, 0, down.size(), after.data());
  for (int64_t i = 0; i < down.size(); i += 32) {
    float expected[32], largest = 0;
    for (int64_t j = 0; j < 32; ++j) {
      const int64_t row = (i + j) / down.shape[1], col = (i + j) % down.shape[1];
      expected[j] = before[static_cast<size_t>(i + j)];
      for (int64_t k = 0; k < 2; ++k)
        expected[j] +=
            2 * b.values[static_cast<size_t>(row * 2 + k)] * a.values[static_cast<size_t>(k * down.shape[1] + col)];
      largest = std::max(largest, std::abs(expected[j]));
    }
    for (int64_t j = 0; j < 32; ++j)  // d/2, and 127 times the rounding of d to fp16
      ASSERT_NEAR(after[static_cast<size_t>(i + j)], expected[j], largest / 127 * (0.5f + 127.0f / 2048) + 1e-6f) << i;
  }
}

// Rows of 8, 12 and 16, which no block of 32 fills.
TEST_F(MergeGguf, RowsThatBlocksDoNotFillAreFp16) {
  write_text(dir_ / "small.gguf", tiny_llama("smollm").finished());
  import_gguf(dir_ / "small.gguf", dir_ / "small");
  base_.emplace(dir_ / "small");
  texts_.tokenizer = dir_ / "small";
  const GgufFile file = written(GgufType::q8_0);
  EXPECT_EQ(file.tensors().size(), 11u);  // the head is tied
  EXPECT_EQ(file.find("output.weight"), nullptr);
  for (const GgufTensor& tensor : file.tensors())
    EXPECT_EQ(tensor.type, tensor.shape.size() == 1 ? GgufType::f32 : GgufType::f16) << tensor.name;
}

TEST_F(MergeGguf, ProductsThatAreNotMadeAreNoticed) {
  CountBackend idle;  // it computes nothing
  expect_error(Fault::corruption, {"where base and adapter together are"}, [&] { write(GgufType::q8_0, idle); });
  EXPECT_FALSE(fs::exists(dir_ / "m.gguf"));
}

TEST_F(MergeGguf, WhatATypeCannotHoldIsRefused) {
  size_ = 60;
  expect_refused(Fault::bad_data, {"proj.weight holds", "more than F16 can; nothing was written"}, GgufType::f16);
  written(GgufType::bf16);  // that holds it
}

TEST_F(MergeGguf, NothingIsReplaced) {
  write_text(dir_ / "m.gguf", "a file");
  expect_refused(Fault::usage, {"m.gguf exists already"});
  EXPECT_EQ(read_text(dir_ / "m.gguf"), "a file");
  fs::remove(dir_ / "m.gguf");
  fs::create_directory(dir_ / "m.gguf");
  expect_refused(Fault::usage, {"m.gguf exists already"});
  fs::remove(dir_ / "m.gguf");
  fs::create_symlink(dir_ / "nowhere", dir_ / "m.gguf");
  expect_refused(Fault::usage, {"m.gguf exists already"});
}

TEST_F(MergeGguf, TextsAreTokenisedAsBefore) {
  // Merges of both spellings, a word of the vocabulary that is added, one that is special, rows without a token.
  change_tokenizer([](Json& json) {
    Json& model = json["model"];
    model["vocab"].erase("ÿ");
    model["vocab"]["ab"] = 258;
    model["merges"] = {Json("a b")};
    json["added_tokens"].push_back({{"id", 5}, {"content", "Ă"}, {"special", false}, {"normalized", false}});
  });
  const GgufFile file = written();
  EXPECT_EQ(file.text("tokenizer.ggml.pre"), "smollm");
  EXPECT_EQ(file.text("tokenizer.chat_template"), "{{ messages }}");
  EXPECT_EQ(file.texts("tokenizer.ggml.merges"), (std::vector<std::string>{"a b"}));
  EXPECT_EQ(file.texts("tokenizer.ggml.tokens")[258], "ab");
  EXPECT_EQ(file.integers("tokenizer.ggml.token_type")[2], 3);
  EXPECT_EQ(file.integers("tokenizer.ggml.token_type")[5], 4);
  EXPECT_EQ(file.integers("tokenizer.ggml.token_type")[6], 1);
  EXPECT_FALSE(file.flag("tokenizer.ggml.add_bos_token", true));
  EXPECT_EQ(file.integer("tokenizer.ggml.bos_token_id"), 1);
  EXPECT_EQ(file.integer("tokenizer.ggml.eos_token_id"), 2);
  EXPECT_FALSE(file.has("tokenizer.ggml.eot_token_id"));
  import_gguf(dir_ / "m.gguf", dir_ / "imported");
  const Tokenizer ours = Tokenizer::open(texts_.tokenizer), theirs = Tokenizer::open(dir_ / "imported");
  for (const std::string text : {"abba cab 12 Ă", "<|im_start|>x<|im_end|>"}) {
    EXPECT_EQ(ours.encode(text), theirs.encode(text)) << text;
    EXPECT_EQ(ours.encode_special(text), theirs.encode_special(text)) << text;
  }
}

TEST_F(MergeGguf, RowsWithoutATokenAreUnused) {
  change_tokenizer([](Json& json) { json["model"]["vocab"].erase("ÿ"); });
  const GgufFile file = written();
  EXPECT_EQ(file.texts("tokenizer.ggml.tokens").size(), 259u);
  EXPECT_EQ(file.texts("tokenizer.ggml.tokens")[258], "[PAD258]");
  EXPECT_EQ(file.integers("tokenizer.ggml.token_type")[258], 5);
}

TEST_F(MergeGguf, FramesAndStopsAreWritten) {
  const auto special = [](const char* name) { return Json{{"SpecialToken", {{"id", name}, {"type_id", 0}}}}; };
  const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const Json known = {{"<|im_start|>", {{"id", "<|im_start|>"}, {"ids", {1}}}},
                      {"<|endoftext|>", {{"id", "<|endoftext|>"}, {"ids", {0}}}}};
  const auto frame = [&](Json single) {
    change_tokenizer([&](Json& json) {
      json["post_processor"] = {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", known}};
    });
  };
  frame({special("<|im_start|>"), text, special("<|endoftext|>")});
  texts_.stops = {0, 2, 7};
  {
    const GgufFile file = written();
    EXPECT_TRUE(file.flag("tokenizer.ggml.add_bos_token", false));
    EXPECT_TRUE(file.flag("tokenizer.ggml.add_eos_token", false));
    EXPECT_EQ(file.integer("tokenizer.ggml.eos_token_id"), 0);  // what stands behind every text
    EXPECT_EQ(file.integer("tokenizer.ggml.eot_token_id"), 2);
    EXPECT_EQ(file.integer("tokenizer.ggml.eom_token_id"), 7);
  }
  fs::remove(dir_ / "m.gguf");
  frame({special("<|endoftext|>"), text});  // that is not the BOS
  expect_refused(Fault::bad_data, {"changed/tokenizer.json", "other tokens around a text", "--merged DIR"});
  frame({text, special("<|endoftext|>"), special("<|endoftext|>")});
  expect_refused(Fault::bad_data, {"other tokens around a text"});
  frame({text});
  texts_.stops = {0, 2, 7, 8};
  expect_refused(Fault::bad_data, {"answers end at 4 tokens (0, 2, 7, 8)", "at most three"});
}

TEST_F(MergeGguf, TokenizersThatItCannotSayAreRefused) {
  const auto added = [&](const char* flag) {
    change_tokenizer([&](Json& json) { json["added_tokens"][0][flag] = true; });
    expect_refused(Fault::bad_data, {"the added token \"<|endoftext|>\" has", flag, "which GGUF cannot say"});
  };
  added("lstrip");
  added("rstrip");
  added("single_word");
  change_tokenizer([](Json&) {});
  Json settings = parse_json(read_text(dir_ / "changed/tokenizer_config.json"), "settings");
  settings["added_tokens_decoder"]["2"] = {{"content", "<|im_end|>"}, {"special", true}, {"rstrip", true}};
  write_text(dir_ / "changed/tokenizer_config.json", settings.dump());  // which holds, where both say something
  expect_refused(Fault::bad_data, {"the added token \"<|im_end|>\" has rstrip"});
  change_tokenizer([](Json& json) { json["model"]["ignore_merges"] = true; });
  expect_refused(Fault::bad_data, {"no name for this pre_tokenizer with ignore_merges true", "smollm, llama-bpe"});
  change_tokenizer([](Json& json) { json["model"]["vocab"]["aa"] = 259; });
  expect_refused(Fault::bad_data, {"the token \"aa\" has the id 259, and the model has 259 rows"});
  change_tokenizer([](Json& json) {
    json["pre_tokenizer"] = nullptr;
    json["normalizer"] = {{"type", "Sequence"},
                          {"normalizers",
                           {{{"type", "Prepend"}, {"prepend", "▁"}},
                            {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}};
    json["decoder"] = {{"type", "Sequence"},
                       {"decoders",
                        {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
                         {{"type", "ByteFallback"}},
                         {{"type", "Fuse"}},
                         {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}};
  });
  expect_refused(Fault::bad_data, {"Llama 2's kind", "convert_hf_to_gguf.py"});
  fs::remove(dir_ / "changed/tokenizer.json");
  write_text(dir_ / "changed/tokenizer.model", "");
  expect_refused(Fault::bad_data, {"tokenizer.model"});
}

TEST_F(MergeGguf, TemplatesOfOtherNamesTravel) {
  change_tokenizer([](Json&) {});
  Json settings = parse_json(read_text(dir_ / "changed/tokenizer_config.json"), "settings");
  settings["chat_template"] = {{{"name", "default"}, {"template", "{{ messages }}"}},
                               {{"name", "tool-use"}, {"template", "{{ tools }}"}}};
  write_text(dir_ / "changed/tokenizer_config.json", settings.dump());
  const GgufFile file = written();
  EXPECT_EQ(file.text("tokenizer.chat_template"), "{{ messages }}");
  EXPECT_EQ(file.texts("tokenizer.chat_templates"), (std::vector<std::string>{"tool_use"}));
  EXPECT_EQ(file.text("tokenizer.chat_template.tool_use"), "{{ tools }}");
  settings["chat_template"][1].erase("template");
  write_text(dir_ / "changed/tokenizer_config.json", settings.dump());
  fs::remove(dir_ / "m.gguf");
  expect_refused(Fault::bad_data, {"changed does not hold a tokenizer of Hugging Face's form"});
}

TEST_F(MergeGguf, SamplingTravels) {
  const fs::path file = dir_ / "model/generation_config.json";
  Json settings = parse_json(read_text(file), "settings");
  settings.update({{"temperature", 0.6}, {"top_p", 0.9}, {"top_k", 40}, {"repetition_penalty", 1.1}});
  write_text(file, settings.dump());
  const GgufFile back = written();
  EXPECT_FLOAT_EQ(static_cast<float>(back.number("general.sampling.temp")), 0.6f);
  EXPECT_FLOAT_EQ(static_cast<float>(back.number("general.sampling.top_p")), 0.9f);
  EXPECT_FLOAT_EQ(static_cast<float>(back.number("general.sampling.penalty_repeat")), 1.1f);
  EXPECT_EQ(back.integer("general.sampling.top_k"), 40);
  EXPECT_FALSE(back.has("general.sampling.min_p"));
}

}  // namespace
}  // namespace drover
