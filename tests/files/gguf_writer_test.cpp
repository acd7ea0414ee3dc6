// What GGUF files are written of: a stream, numbers in ggml's types, configurations, pre-tokenizers, the order of rows.
#include "model/files/gguf_writer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "model/files/gguf_config.h"
#include "model/files/gguf_encode.h"
#include "model/files/gguf_pre_tokenizer.h"
#include "model/files/gguf_tensors.h"
#include "tests/base/scratch_directory.h"
#include "tests/files/made_up_files.h"

namespace drover {
namespace {

TEST(GgufWriter, WritesWhatIsReadBack) {
  ScratchDirectory dir;
  GgufWriter writer(dir / "m.gguf");
  writer.text("general.name", "naïve");
  writer.number("a.number", 1.5f);
  writer.integer("an.integer", 4'000'000'000);
  writer.flag("a.flag", true);
  writer.texts("some.texts", {"a", "", "c d"});
  writer.integers("some.integers", {3, -1});
  writer.tensor("odd", GgufType::f32, {3});
  writer.tensor("matrix", GgufType::f32, {2, 4});
  const std::vector<float> odd = {1, 2, 3}, matrix = counted(8, 10);
  writer.write("odd", odd.data(), 12);
  writer.write("matrix", matrix.data(), 20);  // in pieces
  EXPECT_FALSE(fs::exists(dir / "m.gguf"));
  EXPECT_THROW(writer.write("odd", odd.data(), 4), Error);
  EXPECT_THROW(writer.write("matrix", matrix.data(), 16), Error);  // 12 are left
  EXPECT_THROW(writer.text("too", "late"), Error);
  writer.write("matrix", matrix.data() + 5, 12);
  const int64_t bytes = writer.bytes();
  writer.commit();

  EXPECT_EQ(static_cast<int64_t>(fs::file_size(dir / "m.gguf")), bytes);
  const GgufFile file(dir / "m.gguf");
  EXPECT_EQ(file.text("general.name"), "naïve");
  EXPECT_EQ(file.number("a.number"), 1.5);
  EXPECT_EQ(file.integer("an.integer"), 4'000'000'000);
  EXPECT_TRUE(file.flag("a.flag", false));
  EXPECT_EQ(file.texts("some.texts"), (std::vector<std::string>{"a", "", "c d"}));
  EXPECT_EQ(file.integers("some.integers"), (std::vector<int64_t>{3, -1}));
  EXPECT_EQ(file.find("matrix")->shape, (std::vector<int64_t>{2, 4}));
  std::vector<float> values(8);
  dequantise(*file.find("matrix"), 0, 8, values.data());
  EXPECT_EQ(values, matrix);
}

TEST(GgufWriter, WithoutAllBytesNothingAppears) {
  ScratchDirectory dir;
  {
    GgufWriter writer(dir / "m.gguf");
    writer.tensor("x", GgufType::f32, {4});
    EXPECT_THROW(writer.commit(), Error);
    EXPECT_THROW(writer.tensor("y", GgufType::q8_0, {33}), Error);
  }
  EXPECT_TRUE(fs::is_empty(dir / "."));
}

TEST(GgufEncode, MakesTheBytesThatTheGgufPackageMakes) {
  const nlohmann::json golden =
      nlohmann::json::parse(read_text(fs::path(DROVER_SOURCE_DIR) / "tests" / "golden" / "gguf_encode.json"));
  const std::vector<float> values = golden["values"];
  EXPECT_EQ(golden["types"].size(), 3u);
  for (const auto& [name, expected] : golden["types"].items()) {
    const std::optional<GgufType> type = gguf_outtype(name);
    ASSERT_TRUE(type) << name;
    EXPECT_EQ(gguf_outtype_name(*type), name);
    EXPECT_EQ(static_cast<int>(*type), expected["type"]);
    std::string hex;
    for (const std::byte b : encode_gguf(*type, values, "x")) hex += fmt::format("{:02x}", std::to_integer<int>(b));
    EXPECT_EQ(hex, expected["bytes"]) << name;
  }
  EXPECT_FALSE(gguf_outtype("q4_0"));
}

TEST(GgufEncode, RefusesWhatATypeCannotHold) {
  const auto encoded = [](GgufType type, float value) {
    std::vector<float> values(32, 0.0f);
    values[7] = value;
    return encode_gguf(type, values, "blk.0.w");
  };
  for (const GgufType type : {GgufType::f32, GgufType::bf16, GgufType::f16, GgufType::q8_0}) {
    for (const float value : {NAN, INFINITY, -INFINITY}) {
      expect_error(Fault::bad_data, {"blk.0.w holds"}, [&] { encoded(type, value); });
      expect_error(Fault::bad_data, {"which is no weight"}, [&] { encoded(type, value); });
    }
  }
  encoded(GgufType::f16, 65504);
  expect_error(Fault::bad_data, {"holds -65520, more than F16 can; nothing was written. --outtype bf16"},
               [&] { encoded(GgufType::f16, -65520); });
  encoded(GgufType::q8_0, 8.3e6f);  // 127 times what an fp16 scale holds
  expect_error(Fault::bad_data, {"more than Q8_0 can"}, [&] { encoded(GgufType::q8_0, 8.4e6f); });
  encoded(GgufType::bf16, 3.38e38f);
  expect_error(Fault::bad_data, {"more than BF16 can"}, [&] { encoded(GgufType::bf16, 3.4e38f); });
}

ModelConfig written_and_read(const ModelConfig& config) {
  ScratchDirectory dir;
  GgufWriter writer(dir / "m.gguf");
  write_gguf_config(writer, config);
  writer.texts("tokenizer.ggml.tokens", std::vector<std::string>(static_cast<size_t>(config.vocab), "x"));
  if (!config.tied_head) writer.tensor("output.weight", GgufType::f32, {1});
  const std::vector<float> divisors = config.rope_scaling ? rope_divisors(config) : std::vector<float>();
  if (config.rope_scaling) writer.tensor(kGgufRopeFactors, GgufType::f32, {config.head_dim / 2});
  const float one = 1;
  if (!config.tied_head) writer.write("output.weight", &one, 4);
  if (config.rope_scaling) writer.write(kGgufRopeFactors, divisors.data(), config.head_dim * 2);
  writer.commit();
  return read_gguf_config(GgufFile(dir / "m.gguf"));
}

TEST(GgufConfig, ReadsBackWhatIsWritten) {
  ModelConfig config = small_config();
  config.bos = -1;
  config.eos = {};
  EXPECT_EQ(written_and_read(config), config);
  config.tied_head = false;
  config.head_dim = 6;  // not D / H
  config.norm_eps = 3e-6;
  config.rope_theta = 500000;
  EXPECT_EQ(written_and_read(config), config);
  config.head_dim = 64;
  for (const RopeScaling& scaling : {RopeScaling{}, {.factor = 32}, {.factor = 5.5}, {8, 1, 4, 64}, {8, 2, 3, 1024}}) {
    config.rope_scaling = scaling;
    EXPECT_EQ(written_and_read(config), config) << scaling.factor;
  }
}

TEST(GgufConfig, AScalingThatTheDivisorsDenyIsRefused) {
  ScratchDirectory dir;
  ModelConfig config = small_config();
  config.head_dim = 64;
  config.rope_scaling = RopeScaling{.factor = 5.5};
  GgufWriter writer(dir / "m.gguf");
  write_gguf_config(writer, config);
  writer.texts("tokenizer.ggml.tokens", std::vector<std::string>(10, "x"));
  writer.tensor(kGgufRopeFactors, GgufType::f32, {32});
  config.rope_scaling->factor = 6;
  writer.write(kGgufRopeFactors, rope_divisors(config).data(), 128);
  writer.commit();
  expect_error(Fault::bad_data, {"rope_freqs.weight is not Llama 3's rope scaling"},
               [&] { read_gguf_config(GgufFile(dir / "m.gguf")); });
}

TEST(GgufPreTokenizer, IsKnownByWhatItCuts) {
  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  const Json smollm = {{"type", "Sequence"}, {"pretokenizers", {digits, byte_level}}};
  EXPECT_STREQ(gguf_pre_tokenizer(byte_level, false)->name, "gpt-2");
  EXPECT_STREQ(gguf_pre_tokenizer(smollm, false)->name, "smollm");
  EXPECT_STREQ(gguf_pre_tokenizer(Json(gguf_pre_tokenizer("llama-bpe")->pre_tokenizer), true)->name, "llama-bpe");
  EXPECT_EQ(gguf_pre_tokenizer(smollm, true), nullptr);  // a word that is a token would be cut
  EXPECT_EQ(gguf_pre_tokenizer(Json(gguf_pre_tokenizer("llama-bpe")->pre_tokenizer), false), nullptr);
  EXPECT_EQ(gguf_pre_tokenizer(Json{{"type", "ByteLevel"}}, false), nullptr);  // puts a space before a text
  EXPECT_EQ(gguf_pre_tokenizer(Json{{"type", "Metaspace"}}, false), nullptr);
  EXPECT_EQ(gguf_pre_tokenizer(Json(), false), nullptr);
  EXPECT_EQ(gguf_pre_tokenizer_names(), "smollm, llama-bpe and gpt-2");
}

TEST(GgufTensors, RowsOfAHeadInTurn) {
  // llama.cpp: row (h, p, s) of (heads, E/2, 2) is row (h, s, p) of Hugging Face's (heads, 2, E/2).
  for (const int64_t head_dim : {2, 4, 6, 128}) {
    for (int64_t row = 0; row < 3 * head_dim; ++row) {
      const int64_t h = row / head_dim, p = row % head_dim / 2, s = row % 2;
      EXPECT_EQ(row_from_gguf(row, head_dim), h * head_dim + s * (head_dim / 2) + p);
      EXPECT_EQ(row_in_gguf(row_from_gguf(row, head_dim), head_dim), row);
    }
  }
  EXPECT_EQ(gguf_linear("model.layers.12.mlp.down_proj"), "blk.12.ffn_down");
  EXPECT_EQ(gguf_linear("model.layers.12.mlp"), "");
  EXPECT_EQ(gguf_linear("lm_head"), "");
}

}  // namespace
}  // namespace drover
