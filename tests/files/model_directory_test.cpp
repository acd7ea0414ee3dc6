#include "model/files/model_directory.h"

#include <gtest/gtest.h>

#include <chrono>

#include "model/files/merged_writer.h"
#include "tests/base/scratch_directory.h"
#include "tests/files/made_up_files.h"

namespace drover {
namespace {

constexpr const char* kIndexName = "model.safetensors.index.json";

void write_index(const fs::path& directory, const std::string& map) {
  write_text(directory / kIndexName, "{\"metadata\":{\"total_size\":1},\"weight_map\":{" + map + "}}");
}

TEST(ModelDirectory, ReadsSlicesOfOneFile) {
  ScratchDirectory dir;
  write_text(dir / "config.json", write_model_config(small_config()));
  write_safetensors(dir / "model.safetensors",
                    {{{"w", StoredType::bf16, {6, 5}}, counted(30)}, {{"n", StoredType::f32, {5}}, counted(5, 0.1f)}});
  ModelDirectory model(dir.path());
  EXPECT_EQ(model.config(), small_config());
  EXPECT_EQ(model.shape("w"), (std::vector<int64_t>{6, 5}));
  EXPECT_EQ(model.dtype("n"), StoredType::f32);
  EXPECT_FALSE(model.has("x"));
  EXPECT_EQ(model.bytes_read(), 0);

  float slice[6] = {};
  model.read("w", 2, 3, 1, 2, DType::f32, slice);
  EXPECT_THAT(slice, testing::ElementsAre(11, 12, 16, 17, 21, 22));
  EXPECT_EQ(model.bytes_read(), 3 * 2 * 2);
  bf16 vector[3];
  model.read("n", 1, 3, 0, 1, DType::bf16, vector);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(vector[i].bits, bf16(0.1f + static_cast<float>(i + 1)).bits);
  float whole[30];
  model.read("w", 0, 6, 0, 5, DType::f32, whole);
  EXPECT_EQ(whole[29], 29);
  expect_error(Fault::internal, {"slice"}, [&] { model.read("w", 5, 2, 0, 5, DType::f32, whole); });
  expect_error(Fault::bad_data, {"no tensor x"}, [&] { model.shape("x"); });
}

TEST(ModelDirectory, ChecksNamesAndShapes) {
  ScratchDirectory dir;
  ModelConfig config = small_config();
  write_text(dir / "config.json", write_model_config(config));
  write_safetensors(dir / "model.safetensors", {{{"a.k_proj.weight", StoredType::bf16, {16, 8}}, counted(128)},
                                                {{"b", StoredType::bf16, {3, 2}}, counted(6)},
                                                {{"a.rotary_emb.inv_freq", StoredType::f32, {4}}, counted(4)},
                                                {{"extra", StoredType::f32, {4}}, counted(4)}});
  ModelDirectory model(dir.path());
  const std::vector<ExpectedTensor> good = {{"a.k_proj.weight", 16, 8}, {"b", 3, 2}};
  EXPECT_THAT(model.check_names(good), testing::ElementsAre("extra"));
  model.check_shapes(good);
  const std::vector<ExpectedTensor> missing = {{"b", 3, 2}, {"c", 1, 1}, {"d", 1, 1}};
  expect_error(Fault::bad_data, {"2 of the 3", "\n  c", "\n  d"}, [&] { model.check_names(missing); });
  const std::vector<ExpectedTensor> wrong = {{"a.k_proj.weight", 8, 8}, {"b", 2, 3}};
  expect_error(Fault::bad_data, {"a.k_proj.weight has 16 rows", "duplicated KV heads", "b is [3, 2]", "needs [2, 3]"},
               [&] { model.check_shapes(wrong); });
}

// What merging modules_to_save leaves: a head of its own in a model that says it has none.
TEST(ModelDirectory, AHeadThatIsStoredAndTiedMustBeTheEmbeddings) {
  const std::vector<ExpectedTensor> expected = {{"model.embed_tokens.weight", 6, 2}};
  for (const float off : {0.0f, 1.0f}) {
    ScratchDirectory dir;
    ModelConfig config = small_config();
    config.tied_head = true;
    write_text(dir / "config.json", write_model_config(config));
    write_safetensors(dir / "model.safetensors",
                      {{{"model.embed_tokens.weight", StoredType::bf16, {6, 2}}, counted(12)},
                       {{"lm_head.weight", StoredType::bf16, {6, 2}}, counted(12, off)}});
    ModelDirectory model(dir.path());
    EXPECT_TRUE(model.check_names(expected).empty());
    if (off == 0) {
      model.check_shapes(expected);
    } else {
      expect_error(Fault::bad_data, {"tie_word_embeddings", "lm_head.weight", "to false"},
                   [&] { model.check_shapes(expected); });
    }
  }
}

TEST(ModelDirectory, SaysWhatIsThereInsteadOfWeights) {
  ScratchDirectory dir;
  expect_error(Fault::missing_input, {"none"}, [&] { ModelDirectory model(dir / "none"); });
  expect_error(Fault::missing_input, {"config.json"}, [&] { ModelDirectory model(dir.path()); });
  write_text(dir / "config.json", write_model_config(small_config()));
  expect_error(Fault::missing_input, {"no weights"}, [&] { ModelDirectory model(dir.path()); });
  for (const auto& [name, hint] : std::vector<std::pair<std::string, std::string>>{
           {"pytorch_model.bin", "pickles"}, {"consolidated.00.pth", "pickles"}, {"m.gguf", "drover import"}}) {
    write_text(dir / name, "x");
    expect_error(Fault::bad_data, {name, hint}, [&] { ModelDirectory model(dir.path()); });
    fs::remove(dir / name);
  }
  write_text(dir / "model-00001-of-00002.safetensors", "x");
  expect_error(Fault::missing_input, {"index"}, [&] { ModelDirectory model(dir.path()); });
}

TEST(ModelDirectory, RefusesBadIndices) {
  ScratchDirectory dir;
  write_text(dir / "config.json", write_model_config(small_config()));
  for (const char* name : {"../x.safetensors", "/etc/x.safetensors", "a/x.safetensors", ".."}) {
    write_index(dir.path(), fmt::format("\"w\":\"{}\"", name));
    expect_error(Fault::bad_data, {kIndexName, "allowed are"}, [&] { ModelDirectory model(dir.path()); });
  }
  write_index(dir.path(), "\"w\":\"\"");
  expect_error(Fault::bad_data, {kIndexName}, [&] { ModelDirectory model(dir.path()); });
  write_index(dir.path(), "\"w\":\"x.bin\"");
  expect_error(Fault::bad_data, {"x.bin", "only .safetensors"}, [&] { ModelDirectory model(dir.path()); });
  write_index(dir.path(), "\"w\":7");
  expect_error(Fault::bad_data, {"not a name"}, [&] { ModelDirectory model(dir.path()); });
  write_index(dir.path(), "\"w\":\"a.safetensors\",\"w\":\"b.safetensors\"");
  expect_error(Fault::bad_data, {"\"w\" stands twice"}, [&] { ModelDirectory model(dir.path()); });
  write_text(dir / kIndexName, "{}");
  expect_error(Fault::bad_data, {"weight_map"}, [&] { ModelDirectory model(dir.path()); });
  write_index(dir.path(), "\"w\":\"a.safetensors\",\"v\":\"b.safetensors\"");
  write_safetensors(dir / "a.safetensors", {{{"w", StoredType::f32, {1}}, {1}}, {{"v", StoredType::f32, {1}}, {1}}});
  expect_error(Fault::missing_input, {"b.safetensors"}, [&] { ModelDirectory model(dir.path()); });
  write_safetensors(dir / "b.safetensors", {{{"u", StoredType::f32, {1}}, {1}}});
  ModelDirectory model(dir.path());
  expect_error(Fault::bad_data, {"v stands in two files"}, [&] { model.shape("w"); });
  expect_error(Fault::bad_data, {"index says", "b.safetensors"}, [&] { model.shape("v"); });
}

TEST(ModelDirectory, ATensorInTwoFilesIsOneWhereTheyAreEqual) {
  const auto open = [](float v_in_b, std::vector<int64_t> shape) {
    ScratchDirectory dir;
    write_text(dir / "config.json", write_model_config(small_config()));
    write_index(dir.path(), "\"w\":\"a.safetensors\",\"v\":\"b.safetensors\"");
    write_safetensors(dir / "a.safetensors",
                      {{{"w", StoredType::f32, {2}}, {1, 2}}, {{"v", StoredType::f32, {2}}, {3, 4}}});
    write_safetensors(dir / "b.safetensors",
                      {{{"w", StoredType::f32, {2}}, {1, 2}}, {{"v", StoredType::f32, shape}, {3, v_in_b}}});
    ModelDirectory model(dir.path());
    EXPECT_EQ(model.shape("w"), std::vector<int64_t>{2});
    EXPECT_EQ(model.shape("v"), std::vector<int64_t>{2});
  };
  open(4, {2});
  expect_error(Fault::bad_data, {"v stands in two files, b.safetensors and a.safetensors, and they differ"},
               [&] { open(5, {2}); });
  expect_error(Fault::bad_data, {"v stands in two files", "they differ"}, [&] { open(4, {2, 1}); });
}

TEST(ModelDirectory, FingerprintsSeeHeaderAndDataOfTheFilesAskedFor) {
  ScratchDirectory dir;
  write_text(dir / "config.json", write_model_config(small_config()));
  const auto fingerprint = [&](const std::string& name, float value) {
    write_safetensors(dir / "model.safetensors", {{{name, StoredType::f32, {2}}, {value, 2}}});
    ModelDirectory model(dir.path());
    EXPECT_TRUE(model.fingerprints({}).empty());
    return model.fingerprints(model.names()).at("model.safetensors");
  };
  const std::string first = fingerprint("w", 1);
  EXPECT_EQ(first.size(), 64u);
  EXPECT_EQ(fingerprint("w", 1), first);
  EXPECT_NE(fingerprint("w", 3), first);
  EXPECT_NE(fingerprint("v", 1), first);
}

// 191 files with holes, 810 GB by their sizes: a rank opens only what it asks for.
TEST(ModelDirectory, OpensASparse405bFileByFile) {
  ScratchDirectory dir;
  write_text(dir / "config.json", write_model_config(*known_model("llama3.1-405b")));
  const int64_t d = 16384, f = 53248;
  std::string map;
  for (int i = 1; i <= 191; ++i) {
    const std::string file = fmt::format("model-{:05}-of-00191.safetensors", i);
    std::vector<TensorSpec> tensors = {{fmt::format("t{}.gate", i), StoredType::bf16, {f, d}},
                                       {fmt::format("t{}.down", i), StoredType::bf16, {d, f}}};
    sort_canonically(tensors);
    const std::string header = safetensors_header(tensors, {{"format", "pt"}});
    std::ofstream(dir / file, std::ios::binary) << bytes_of(static_cast<uint64_t>(header.size())) << header;
    fs::resize_file(dir / file, 8 + header.size() + static_cast<size_t>(4 * d * f));
    map += fmt::format("{}\"t{}.gate\":\"{}\",\"t{}.down\":\"{}\"", i == 1 ? "" : ",", i, file, i, file);
  }
  write_index(dir.path(), map);
  const auto start = std::chrono::steady_clock::now();
  ModelDirectory model(dir.path());
  EXPECT_EQ(model.files_opened(), 0);
  std::vector<bf16> out(static_cast<size_t>(64 * d));
  model.read("t7.gate", f / 2, 64, 0, d, DType::bf16, out.data());
  model.read("t7.down", d - 64, 64, f - 100, 100, DType::bf16, out.data());
  EXPECT_EQ(model.files_opened(), 1);
  EXPECT_EQ(model.bytes_read(), 64 * d * 2 + 64 * 100 * 2);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 1.0);
}

TEST(MergedWriter, ShardsAndReadsBack) {
  const std::vector<TensorSpec> specs = {
      {"a", StoredType::f32, {2, 2}}, {"c", StoredType::f32, {4}}, {"b", StoredType::bf16, {3}}};
  for (const auto& [limit, files] : std::vector<std::pair<int64_t, size_t>>{{1'000'000, 1}, {32, 2}, {1, 3}}) {
    ScratchDirectory dir;
    write_text(dir / "config.json", write_model_config(small_config()));
    MergedWriter writer(dir.path(), specs, limit);
    EXPECT_EQ(writer.files().size(), files);
    for (const TensorSpec& spec : writer.order()) {
      std::vector<char> data(static_cast<size_t>(spec.bytes()), spec.name[0]);
      writer.write(spec.name, data.data(), spec.bytes() / 2);
      writer.write(spec.name, data.data(), spec.bytes() - spec.bytes() / 2);
    }
    writer.commit();
    EXPECT_EQ(fs::exists(dir / kIndexName), files > 1);
    EXPECT_EQ(fs::exists(dir / "model.safetensors"), files == 1);
    ModelDirectory model(dir.path());
    EXPECT_EQ(model.names().size(), 3u);
    EXPECT_EQ(model.shape("a"), (std::vector<int64_t>{2, 2}));
    bf16 b[3];
    model.read("b", 0, 3, 0, 1, DType::bf16, b);
    EXPECT_EQ(b[2].bits, 0x6262);
  }
}

}  // namespace
}  // namespace drover
