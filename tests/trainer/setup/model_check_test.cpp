// Ranks check a model together, each its own layers' files, and notice when they see different ones.
#include "trainer/setup/model_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/comm/threads.h"
#include "model/weight_table.h"
#include "tests/base/scratch_directory.h"
#include "tests/files/made_up_files.h"

namespace drover {
namespace {

// One file for the ends, one for each of the four layers.
void write_model(const fs::path& directory, float value, int64_t rows_missing = 0) {
  fs::create_directories(directory);
  ModelConfig config = small_config();
  config.layers = 4;
  write_text(directory / "config.json", write_model_config(config));
  std::map<std::string, std::vector<std::pair<TensorSpec, std::vector<float>>>> files;
  std::string map;
  for (const ParamSpec& spec : weight_table(config)) {
    const std::string file =
        spec.layer < 0 ? "ends.safetensors" : "layer" + std::to_string(spec.layer) + ".safetensors";
    const int64_t rows = spec.layer == 2 && spec.name.ends_with("k_proj.weight") ? spec.rows - rows_missing : spec.rows;
    std::vector<int64_t> shape = {rows};
    if (spec.cols > 1) shape.push_back(spec.cols);
    files[file].push_back(
        {{spec.name, StoredType::f32, shape}, std::vector<float>(static_cast<size_t>(rows * spec.cols), value)});
    map += fmt::format("{}\"{}\":\"{}\"", map.empty() ? "" : ",", spec.name, file);
  }
  for (const auto& [file, tensors] : files) write_safetensors(directory / file, tensors);
  write_text(directory / "model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
}

TEST(ModelCheck, RanksOpenTheirOwnFilesAndAgreeOnOneFingerprint) {
  ScratchDirectory dir;
  write_model(dir / "m", 1);
  std::string alone;
  {
    ModelDirectory model(dir / "m");
    alone = check_weights_together(model, {0, 4}, *make_self_communicator("world"));
    EXPECT_EQ(model.files_opened(), 5);
  }
  run_on_threads({{Axis::pp, 4}}, [&](Mesh& mesh) {
    ModelDirectory model(dir / "m");
    const int64_t stage = mesh.position.pp();
    EXPECT_EQ(check_weights_together(model, {stage, stage + 1}, *mesh.world), alone);
    EXPECT_EQ(model.files_opened(), stage == 0 || stage == 3 ? 2 : 1);
  });
  write_model(dir / "n", 2);
  ModelDirectory other(dir / "n");
  EXPECT_NE(check_weights_together(other, {0, 4}, *make_self_communicator("world")), alone);
}

TEST(ModelCheck, DifferentModelsAreNoticedWhereRanksMeet) {
  ScratchDirectory dir;
  write_model(dir / "a", 1);
  write_model(dir / "b", 2);
  expect_error(Fault::bad_recipe, {"different models", "rank 1"}, [&] {
    run_on_threads({{Axis::dp, 2}}, [&](Mesh& mesh) {
      ModelDirectory model(dir / (mesh.position.dp() == 0 ? "a" : "b"));
      check_weights_together(model, {0, 4}, *mesh.world);
    });
  });
}

TEST(ModelCheck, AWrongShapeOnOneStageEndsAll) {
  ScratchDirectory dir;
  write_model(dir / "m", 1, 2);
  std::atomic<int> refused = 0;
  expect_error(Fault::bad_data, {"layers.2.self_attn.k_proj"}, [&] {
    run_on_threads({{Axis::pp, 4}}, [&](Mesh& mesh) {
      ModelDirectory model(dir / "m");
      try {
        check_weights_together(model, {mesh.position.pp(), mesh.position.pp() + 1}, *mesh.world);
      } catch (const Error&) {
        ++refused;
        throw;
      }
    });
  });
  EXPECT_EQ(refused, 4);
}

}  // namespace
}  // namespace drover
