// An adapter that computes something else than what was trained is noticed, however it came to that.
#include "trainer/export/comparison.h"

#include <cmath>

#include "data/token_store.h"
#include "kernels/base/json.h"
#include "kernels/cpu/cpu_backend.h"
#include "launch/tiny_model.h"
#include "model/files/factor.h"
#include "tests/base/scratch_directory.h"
#include "trainer/engine/plan.h"
#include "trainer/export/export.h"
#include "trainer/export/export_check.h"
#include "trainer/export/merge.h"
#include "trainer/export/merged_weights.h"
#include "trainer/export/token_logprobs.h"
#include "trainer/setup/adapter_setup.h"
#include "trainer/setup/engine_settings.h"

namespace drover {
namespace {

TEST(Comparison, MeasuresWhatItSays) {
  const std::vector<float> before = {-3, -4}, after = {-3, -3.5};
  const Compared c = compared(after, before);
  EXPECT_DOUBLE_EQ(c.logprob, -3.25);
  EXPECT_DOUBLE_EQ(c.distance, 0.1);
  EXPECT_DOUBLE_EQ(c.largest, 0.5);
  EXPECT_DOUBLE_EQ(c.typical, std::sqrt(0.125));
}

Comparison off_by(double reloaded, double served, DType dtype, DType adapter) {
  Comparison c{.tokens = 9, .dtype = dtype, .adapter_dtype = adapter};
  c.reloaded = Compared{.distance = reloaded, .typical = reloaded};
  c.served = Compared{.distance = served, .typical = served};
  return c;
}

TEST(Comparison, HasTheBoundsOfItsNumberTypes) {
  const DType f32 = DType::f32, bf16 = DType::bf16;
  for (const Comparison& fine :
       {off_by(0, 0.9e-5, f32, f32), off_by(0, 0.04, bf16, f32), off_by(0.04, 0.04, f32, bf16)})
    EXPECT_NO_THROW(check(fine, "adapter", "again"));
  for (const Comparison& wrong : {off_by(1e-9, 0, f32, f32), off_by(0, 1.1e-5, f32, f32), off_by(0, 0.06, bf16, f32),
                                  off_by(0.06, 0, bf16, bf16), off_by(NAN, 0, f32, f32), off_by(0, NAN, bf16, bf16)})
    expect_error(Fault::corruption, {"adapter: read back", "again"}, [&] { check(wrong, "adapter", "again"); });
  // Where all is known by heart, ‖ln p‖ is next to nothing: a hundred thousandth of a nat is no fault.
  Comparison by_heart = off_by(0, 1e-2, f32, f32);
  by_heart.served->typical = 1e-6;
  EXPECT_NO_THROW(check(by_heart, "adapter", "again"));
}

TEST(Comparison, SaysWhatIsNotThere) {
  Comparison c = off_by(0, 0, DType::bf16, DType::f32);
  c.rows = "validation", c.of_run = true, c.logprob = -2;
  c.served.reset();
  c.why["served"] = "no room";
  const Json json = parse_json(comparison_json(c), "comparison.json");
  EXPECT_EQ(json["trained_logprob"], -2);
  EXPECT_EQ(json["dtype"], "bf16");
  EXPECT_TRUE(json.contains("reloaded"));
  EXPECT_FALSE(json.contains("served") || json.contains("merged") || json.contains("checkpoint_logprob"));
  EXPECT_EQ(json["why"], (Json{{"served", "no room"}}));
}

// A tiny model with an adapter of rank 2 on q and v, as it was trained.
class Trained : public testing::Test {
 protected:
  Trained() {
    make_tiny_model(dir_ / "model", 1);
    base_.emplace(dir_ / "model");
    config_.r = 2, config_.alpha = 4;
    for (int d = 0; d < 3; ++d) {
      std::vector<int32_t> ids;
      for (int i = 0; i < 30 + 20 * d; ++i) ids.push_back((d * 31 + i * 17) % 200);
      std::vector<uint8_t> trained(ids.size(), 1);
      trained[0] = trained[5] = 0;
      documents_.add_document(ids, trained, 1);
    }
    documents_.make_rows(false, 128);
    Recipe recipe;
    recipe.train.dtype = Precision::fp32;
    recipe.data.max_length = 128;
    recipe.train.global_batch_size = 2;
    device_ = {make_cpu_backend(1), make_self_mesh()};
    settings_ = engine_settings(recipe, base_->config(), adapter_layout_of(base_->config(), config_), {}, nullptr);
    settings_.train = true;
    fit_to(device_, settings_);
    const ArenaBytes bytes = plan_rank(settings_, device_.mesh.shape, device_.mesh.position).bytes;
    replica_ = open_replica(settings_, device_, BaseWeights(*base_), bytes);
    engine_.emplace(settings_, *replica_, bytes.saved);
    write("adapter", 1);
    load_adapter(dir_ / "adapter", settings_.model, *replica_->adapter);
  }

  // `size`: of the last layer's B.
  void write(const char* name, float size) {
    AdapterForm form{config_, {}, [this, size](const std::string& factor) {
                       const auto [rows, cols] = shapes_.at(factor);
                       AdapterMatrix m{rows, cols, {}};
                       const float scale = factor.find(".3.self_attn.v_proj.lora_B") == std::string::npos ? 1 : size;
                       for (int64_t i = 0; i < rows * cols; ++i)
                         m.values.push_back(0.02f * scale * static_cast<float>((i * 37) % 19 - 9));
                       return m;
                     }};
    for (const FactorSlice& slice : factor_slices(settings_.model, settings_.adapter, replica_->stage.placement()))
      shapes_[slice.name] = {slice.rows, slice.cols};
    form.shapes = shapes_;
    export_adapter(form, DType::f32, dir_ / name);
  }

  Comparison compare(const char* adapter) { return compare_trained(*engine_, documents_, dir_ / adapter); }

  ScratchDirectory dir_;
  std::optional<ModelDirectory> base_;
  AdapterConfig config_;
  TokenStore documents_;
  Device device_;
  EngineSettings settings_;
  std::unique_ptr<Replica> replica_;
  std::optional<Engine> engine_;
  FactorShapes shapes_;
};

TEST_F(Trained, ComesBackAndIsServedAsItWas) {
  const Comparison c = compare("adapter");
  EXPECT_EQ(c.tokens, 30 + 50 + 70 - 6);
  EXPECT_TRUE(c.why.empty());
  EXPECT_EQ(c.reloaded->distance, 0);
  EXPECT_LT(c.served->distance, 1e-5);
  EXPECT_NEAR(c.served->logprob, c.logprob, 1e-5);
  EXPECT_LT(c.logprob, -1);
  EXPECT_NO_THROW(check(c, "adapter", ""));
}

TEST_F(Trained, OneChangedTensorIsNoticed) {
  write("broken", 1.01f);
  const Comparison c = compare("broken");
  EXPECT_GT(c.reloaded->distance, 0);
  EXPECT_GT(c.served->distance, 1e-5);
  expect_error(Fault::corruption, {"adapter: read back", "nothing"}, [&] { check(c, "adapter", "nothing"); });
}

TEST_F(Trained, AGenerationPathWithoutMemoryIsSaid) {
  const Frame held(engine_->idle_memory());
  engine_->idle_memory().tensor(1, engine_->idle_memory().capacity_bytes() / 4 - 16384, DType::f32);
  const Comparison c = compare("adapter");
  EXPECT_TRUE(c.reloaded);
  EXPECT_FALSE(c.served);
  EXPECT_NE(c.why.at("served").find("MiB more than training has planned"), std::string::npos) << c.why.at("served");
}

// A byte less would be too little.
TEST_F(Trained, TheGenerationPathTakesWhatWasCounted) {
  for (int length = 3; length < 127; length += 11) {
    TokenStore one;
    one.add_document(std::vector<int32_t>(static_cast<size_t>(length), 7),
                     std::vector<uint8_t>(static_cast<size_t>(length), 1), 1);
    one.make_rows(false, 128);
    const ScoringBytes bytes = scoring_bytes(settings_, device_.mesh, one);
    Arena cache("cache", device_.backend->memory(), bytes.cache), pass("pass", device_.backend->memory(), bytes.pass);
    EXPECT_EQ(served_logprobs(*replica_, {cache, pass}, one).size(), static_cast<size_t>(length - 1));
    EXPECT_EQ(cache.peak_bytes(), bytes.cache);
  }
}

TEST_F(Trained, MergedWeightsAreThoseThatAreWritten) {
  const AdapterFile file(dir_ / "adapter");
  const AdapterSource source{file.config(), [&](const std::string& name) { return file.read(name); }};
  BaseWeights base(*base_);
  merge(source, base, dir_ / "merged", *device_.backend, {}, [](const fs::path&, MergeReport&) {});
  ModelDirectory written(dir_ / "merged");
  MergedWeights merged(source, base, *device_.backend);
  Arena arena("values", device_.backend->memory(), 1 << 20);
  for (const ParamSpec& spec : weight_table(written.config())) {
    const Frame frame(arena);
    const int64_t rows = (spec.rows + 1) / 2, row = spec.rows - rows;
    const Tensor ours = arena.tensor(rows, spec.cols, DType::f32);
    merged.read(spec, row, 0, ours);
    std::vector<float> values(static_cast<size_t>(rows * spec.cols)), theirs(values.size());
    device_.backend->download(ours, values.data());
    written.read(spec.name, row, rows, 0, spec.cols, DType::f32, theirs.data());
    EXPECT_EQ(values, theirs) << spec.name;
  }
}

}  // namespace
}  // namespace drover
