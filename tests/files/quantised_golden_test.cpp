// Quantised directories as bitsandbytes, compressed-tensors and PyTorch made them (tests/golden/quantised.py): the same
// values, bit for bit, whole and in slices.
#include <gtest/gtest.h>

#include "kernels/base/hash.h"
#include "tests/files/quantised_files.h"

namespace drover {
namespace {

Json golden(const std::string& layout) {
  const fs::path file = fs::path(DROVER_SOURCE_DIR) / "tests" / "golden" / "quantised.json";
  const Json all = parse_json(read_text(file), file.string());
  for (const Json& row : all["layouts"]) {
    if (row["name"] == layout) return row;
  }
  ADD_FAILURE() << "no golden of " << layout;
  return {};
}

class Quantised : public testing::TestWithParam<std::string> {
 protected:
  Quantised() : model(golden_directory(GetParam())) {
    const Json row = golden(GetParam());
    for (const auto& [name, weight] : row["weights"].items()) {
      const auto shape = weight["shape"].get<std::vector<int64_t>>();
      weights.push_back({name, shape[0], shape[1]});
      hashes.push_back(weight["sha256"]);
    }
  }
  std::vector<float> whole(const ExpectedTensor& w) {
    std::vector<float> values(static_cast<size_t>(w.rows * w.cols));
    model.read(w.name, 0, w.rows, 0, w.cols, DType::f32, values.data());
    return values;
  }
  // Rows [row, row + rows) and columns [col, col + cols) of `values`, those of the whole of `w`.
  static std::vector<float> part(const ExpectedTensor& w, const std::vector<float>& values, int64_t row, int64_t rows,
                                 int64_t col, int64_t cols) {
    std::vector<float> out;
    for (int64_t r = row; r < row + rows; ++r)
      out.insert(out.end(), values.begin() + r * w.cols + col, values.begin() + r * w.cols + col + cols);
    return out;
  }
  std::vector<float> dequantised(const ExpectedTensor& w, int64_t row, int64_t rows, int64_t col, int64_t cols) {
    std::vector<float> out(static_cast<size_t>(rows * cols));
    if (model.scaling(w.name)->kind == StoredScaling::Kind::nf4) {
      dequantise(model.read_nf4(w.name, row, rows, col, cols), out.data());
    } else {
      dequantise(model.read_fp8(w.name, row, rows, col, cols), out.data());
    }
    return out;
  }

  ModelDirectory model;
  std::vector<ExpectedTensor> weights;
  std::vector<std::string> hashes;
};

TEST_P(Quantised, ValuesAreThoseOfTheLibraryThatMadeThem) {
  ASSERT_EQ(weights.size(), GetParam() == "fbgemm" ? 3u : 7u);
  for (size_t i = 0; i < weights.size(); ++i) {
    const std::vector<float> values = whole(weights[i]);
    EXPECT_EQ(sha256_hex({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)}), hashes[i])
        << weights[i].name;
    std::vector<bf16> halves(values.size());
    model.read(weights[i].name, 0, weights[i].rows, 0, weights[i].cols, DType::bf16, halves.data());
    for (size_t j = 0; j < values.size(); ++j) ASSERT_EQ(halves[j].bits, bf16(values[j]).bits);
  }
}

TEST_P(Quantised, SlicesArePartsOfTheWhole) {
  for (const ExpectedTensor& w : weights) {
    const std::vector<float> values = whole(w);
    const int64_t half = w.rows / 2;
    EXPECT_EQ(dequantised(w, half, w.rows - half, 0, w.cols), part(w, values, half, w.rows - half, 0, w.cols));
    EXPECT_EQ(dequantised(w, 3, 50, 64, 64), part(w, values, 3, 50, 64, 64));
    EXPECT_EQ(dequantised(w, w.rows - 1, 1, w.cols - 64, 64), part(w, values, w.rows - 1, 1, w.cols - 64, 64));
    std::vector<float> odd(5 * 97);
    model.read(w.name, 59, 5, 30, 97, DType::f32, odd.data());
    EXPECT_EQ(odd, part(w, values, 59, 5, 30, 97)) << w.name;
    EXPECT_TRUE(dequantised(w, 1, 0, 0, 64).empty());
    if (model.scaling(w.name)->kind != StoredScaling::Kind::fp8) continue;
    EXPECT_EQ(dequantised(w, 1, 2, 127, 1), part(w, values, 1, 2, 127, 1));
  }
}

TEST_P(Quantised, ShapesAreThoseOfTheModel) {
  const std::vector<ExpectedTensor> expected = expected_of_golden();
  EXPECT_THAT(model.check_names(expected), testing::IsEmpty());
  model.check_shapes(expected);
  for (const ExpectedTensor& w : expected) {
    const bool quantised = std::ranges::find(weights, w.name, &ExpectedTensor::name) != weights.end();
    EXPECT_EQ(model.scaling(w.name).has_value(), quantised) << w.name;
    EXPECT_EQ(model.shape(w.name)[0], w.rows);
    EXPECT_EQ(model.plain_dtype(w.name), StoredType::bf16);
    const StoredType codes = GetParam().starts_with("nf4") ? StoredType::u8 : StoredType::f8_e4m3;
    EXPECT_EQ(model.dtype(w.name), quantised ? codes : StoredType::bf16);
  }
}

TEST_P(Quantised, ASliceReadsItsOwnBytes) {
  const std::string name = linear_name("down");  // (192, 320)
  (void)model.scaling(name);
  const int64_t before = model.bytes_read();
  (void)dequantised({name, 192, 320}, 10, 4, 64, 128);
  const std::map<std::string, int64_t> bytes = {
      {"nf4-nested", 4 * 64 + 4 * 2 + 4 + 1024},  // codes, absmax, one run of them, their levels
      {"nf4-plain", 4 * 64 + 4 * 2 * 4},
      {"fbgemm", 4 * 128 + 4 * 4},
      {"blocks", 4 * 128 + 2 * 4},
      {"compressed", 4 * 128 + 4},
      {"modelopt", 4 * 128 + 4},
  };
  EXPECT_EQ(model.bytes_read() - before, bytes.at(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Layouts, Quantised, testing::ValuesIn(kLayouts), [](const auto& info) {
  std::string name = info.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

TEST(QuantisedScaling, IsAsStored) {
  const auto scaling_of = [](const char* layout, const char* projection) {
    ModelDirectory model(golden_directory(layout));
    return *model.scaling(linear_name(projection));
  };
  using Kind = StoredScaling::Kind;
  EXPECT_EQ(scaling_of("nf4-nested", "q"), (StoredScaling{Kind::nf4, {}, true, Rounding::bf16}));
  EXPECT_EQ(scaling_of("nf4-plain", "q"), (StoredScaling{Kind::nf4, {}, false, Rounding::bf16}));
  EXPECT_EQ(scaling_of("fbgemm", "up"), (StoredScaling{Kind::fp8, {1, 0}, false, Rounding::none, 1200}));
  EXPECT_EQ(scaling_of("blocks", "up"), (StoredScaling{Kind::fp8, {128, 128}, false, Rounding::none}));
  EXPECT_EQ(scaling_of("compressed", "q"), (StoredScaling{Kind::fp8, {1, 0}, false, Rounding::bf16}));
  EXPECT_EQ(scaling_of("compressed", "up"), (StoredScaling{Kind::fp8, {0, 0}, false, Rounding::none}));
  EXPECT_EQ(scaling_of("modelopt", "q"), (StoredScaling{Kind::fp8, {0, 0}, false, Rounding::none}));
}

// FSDP wants codes in the type of the other weights (bnb_4bit_quant_storage).
TEST(QuantisedScaling, NF4InOtherStorage) {
  ChangedDirectory changed("nf4-nested");
  for (auto& [name, tensor] : changed.tensors) {
    if (!name.ends_with("_proj.weight")) continue;
    tensor.dtype = StoredType::bf16;
    tensor.shape[0] /= 2;
  }
  ModelDirectory model(changed.written()), original(golden_directory("nf4-nested"));
  std::vector<float> a(192 * 320), b(a.size());
  model.read(linear_name("down"), 0, 192, 0, 320, DType::f32, a.data());
  original.read(linear_name("down"), 0, 192, 0, 320, DType::f32, b.data());
  EXPECT_EQ(a, b);
}

// AutoFP8 writes one scale for each tensor under the other name; some repositories write scales in bf16.
TEST(QuantisedScaling, Fp8OfOtherWriters) {
  ChangedDirectory changed("modelopt");
  changed.older.clear();
  changed.config["quantization_config"] = {
      {"quant_method", "fp8"}, {"activation_scheme", "static"}, {"ignored_layers", {"lm_head"}}};
  EXPECT_EQ(ModelDirectory(changed.written()).scaling(linear_name("q"))->blocks, (ScaleBlocks{0, 0}));

  ChangedDirectory blocks("blocks");
  RawTensor& scale = blocks.tensors.at(linear_name("k") + "_scale_inv");
  std::vector<float> values(2);
  std::memcpy(values.data(), scale.bytes.data(), 8);
  scale.dtype = StoredType::bf16;
  scale.bytes = bytes_of(bf16(values[0])) + bytes_of(bf16(values[1]));
  blocks.config["compression_config"] = blocks.config["quantization_config"];
  blocks.config.erase("quantization_config");
  ModelDirectory model(blocks.written());
  EXPECT_EQ(model.scaling(linear_name("k"))->rounding, Rounding::none);
  EXPECT_EQ(model.read_fp8(linear_name("k"), 0, 1, 0, 192).scales,
            (std::vector<float>{static_cast<float>(bf16(values[0])), static_cast<float>(bf16(values[1]))}));
}

// A layer of Meta's fp8 release of 405B in files with holes: the MLP in fp8 with a scale for each row, attention in
// bf16, the scales in a file of their own.
TEST(QuantisedScaling, ALayerOf405bIsReadFromWhereItLies) {
  ScratchDirectory dir;
  const ModelConfig config = *known_model("llama3.1-405b");
  const int64_t d = config.hidden, f = config.ffn;
  Json json = parse_json(write_model_config(config), "config.json");
  Json kept = {"lm_head", "model.layers.0", "model.layers.125"};
  for (int layer = 1; layer < 125; ++layer) kept.push_back(fmt::format("model.layers.{}.self_attn", layer));
  json["quantization_config"] = {
      {"quant_method", "fbgemm_fp8"}, {"activation_scale_ub", 1200}, {"modules_to_not_convert", kept}};
  write_text(dir / "config.json", json.dump());
  const std::string mlp = "model.layers.12.mlp.", gate = mlp + "gate_proj.weight", down = mlp + "down_proj.weight",
                    q = "model.layers.12.self_attn.q_proj.weight";
  std::vector<TensorSpec> tensors = {
      {gate, StoredType::f8_e4m3, {f, d}}, {down, StoredType::f8_e4m3, {d, f}}, {q, StoredType::bf16, {d, d}}};
  sort_canonically(tensors);
  const std::string header = safetensors_header(tensors, {{"format", "pt"}});
  std::ofstream(dir / "a.safetensors", std::ios::binary) << bytes_of(static_cast<uint64_t>(header.size())) << header;
  fs::resize_file(dir / "a.safetensors", 8 + header.size() + static_cast<size_t>(2 * d * f + 2 * d * d));
  std::vector<float> scales(static_cast<size_t>(f), 0.25f);
  scales[5000] = 0.5f;
  write_raw(dir / "b.safetensors", {{gate + "_scale", floats(scales, {f, 1})},
                                    {down + "_scale", floats(std::vector<float>(static_cast<size_t>(d), 2), {d, 1})}});
  {
    const SafetensorsFile file(dir / "a.safetensors");
    std::fstream codes(dir / "a.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    codes.seekp(static_cast<int64_t>(file.find(gate)->offset) + 5000 * d + 77);
    codes.put(0x3c);  // 1.5
  }
  write_text(dir / "model.safetensors.index.json", Json{{"weight_map",
                                                         {{gate, "a.safetensors"},
                                                          {down, "a.safetensors"},
                                                          {q, "a.safetensors"},
                                                          {gate + "_scale", "b.safetensors"},
                                                          {down + "_scale", "b.safetensors"}}}}
                                                       .dump());
  ModelDirectory model(dir.path());
  model.check_shapes(std::vector<ExpectedTensor>{{gate, f, d}, {down, d, f}, {q, d, d}});
  EXPECT_EQ(model.scaling(gate)->blocks, (ScaleBlocks{1, 0}));
  EXPECT_FALSE(model.scaling(q));
  EXPECT_EQ(model.bytes_read(), 0);
  std::vector<float> values(static_cast<size_t>(16 * d));
  dequantise(model.read_fp8(gate, 4990, 16, 0, d), values.data());
  EXPECT_EQ(values[static_cast<size_t>(10 * d + 77)], 0.75f);
  EXPECT_EQ(model.bytes_read(), 16 * d + 16 * 4);
  const Fp8Slice columns = model.read_fp8(down, 100, 8, f - 256, 256);
  EXPECT_EQ(columns.scales, std::vector<float>(8, 2.0f));
}

}  // namespace
}  // namespace drover
