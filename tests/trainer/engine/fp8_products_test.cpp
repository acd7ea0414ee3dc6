// Training with products in fp8 (train.matmul: fp8): it is taken, close to training with widened weights, and keeps
// what holds for every other way of computing: recomputing, checkpoints, tensor parallelism and packing.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <mutex>
#include <numeric>

#include "kernels/base/e4m3.h"
#include "kernels/base/quantise.h"
#include "kernels/comm/threads.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/files/quantised_files.h"
#include "tests/support/made_up.h"
#include "trainer/engine/plan.h"
#include "trainer/run/checkpoint.h"
#include "trainer/setup/fp8_linears.h"

namespace drover {
namespace {

// tp 2 cuts rows and columns at multiples of 128.
EngineSettings settings_of(DType dtype = DType::f32) {
  EngineSettings s;
  s.model.hidden = 256, s.model.layers = 2, s.model.heads = 8, s.model.kv_heads = 8, s.model.head_dim = 32,
  s.model.ffn = 512, s.model.vocab = 101, s.model.max_positions = 64;
  s.adapter = adapter_layout(s.model, [](const std::string&) { return LowRankSpec{3, 1.5f}; });
  s.partition = {{0, s.model.layers}};
  s.dtype = dtype;
  s.weights = WeightsAs::fp8;
  s.products = Products::fp8;
  s.max_positions = 64;
  s.capacity.micro_batch = {40, 40};
  s.capacity.local_micro_batches = 2;
  s.optimizer = {.learning_rate = {LearningRateShape::constant, 5e-3}, .weight_decay = 0.01, .max_grad_norm = 1};
  return s;
}

Batch batch_of(int64_t step, const std::vector<std::vector<int64_t>>& micro_batches = {{23, 9}, {31}}) {
  Batch batch;
  for (const auto& lengths : micro_batches) {
    batch.micro_batches.push_back(
        made_up_micro_batch(3, lengths, static_cast<int>(10 * step + 2 * batch.total), 101, batch.total));
    ++batch.total;
    for (float w : batch.micro_batches.back().weights) batch.weight_sum += w;
  }
  return batch;
}

// Codes with a scale of its own for each row, as fbgemm's files have them.
class RowScaled : public WeightSource {
 public:
  explicit RowScaled(WeightSource& inner) : inner_(inner) {}
  void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) override { inner_.read(spec, row, col, to); }
  std::optional<StoredScaling> scaling(const ParamSpec& spec) override {
    if (spec.split != Split::output && spec.split != Split::input) return {};
    return StoredScaling{.blocks = {1, 0}};
  }
  Fp8Slice read_fp8(const ParamSpec& spec, Range rows, Range cols) override {
    std::vector<float> values(static_cast<size_t>(rows.count * spec.cols));
    inner_.read(spec, rows.begin, 0, matrix(values.data(), rows.count, spec.cols));
    Fp8Slice all{.row = rows.begin, .rows = rows.count, .cols = spec.cols, .blocks = {1, 0}};
    for (int64_t r = 0; r < rows.count; ++r) {
      const std::span<const float> row(values.data() + r * spec.cols, static_cast<size_t>(spec.cols));
      all.scales.push_back(largest_magnitude(row) / kLargestE4m3);
      for (const float value : row) all.codes.push_back(e4m3_of_float(value / all.scales.back()));
    }
    return cut(all, rows.begin, rows.count, cols.begin, cols.count);
  }

 private:
  WeightSource& inner_;
};

enum class Scales : uint8_t { blocks, rows };

std::vector<float> values_of(Tensor t) { return {t.as<float>(), t.as<float>() + t.size()}; }

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / size);
}

class Trained {
 public:
  explicit Trained(const EngineSettings& settings, Scales scales = Scales::blocks, Mesh mesh = make_self_mesh())
      : settings_(settings),
        source_(scales == Scales::rows ? static_cast<WeightSource&>(by_rows_) : drawn_),
        bytes_(plan_rank(planned(), mesh.shape, mesh.position).bytes),
        replica_(settings_, Device{make_cpu_backend(1), std::move(mesh)}, source_, bytes_) {
    replica_.adapter->load([&](const FactorSlice& f, float* to) {
      for (int64_t i = 0; i < f.size(); ++i) {
        const int64_t row = f.row_begin + i / f.col_count, col = f.col_begin + i % f.col_count;
        to[i] = drawn(5, f.name, row * f.cols + col, 0, 0.1f);
      }
    });
  }
  Replica& replica() { return replica_; }
  Engine& engine() { return engine_; }
  const ArenaBytes& bytes() const { return bytes_; }
  std::vector<float> parameters() const { return values_of(replica_.adapter->parameters); }
  std::vector<float> gradients() const { return values_of(replica_.adapter->gradients); }
  std::vector<double> train(int64_t steps) {
    std::vector<double> losses;
    for (int64_t step = 1; step <= steps; ++step) losses.push_back(engine_.train_step(batch_of(step), step).loss);
    return losses;
  }

 private:
  EngineSettings planned() {
    EngineSettings s = settings_;
    s.stored = [this](const ParamSpec& spec) { return source_.scaling(spec); };
    return s;
  }
  EngineSettings settings_;
  VariedWeights drawn_{11, 0.04f, 0.1f};
  RowScaled by_rows_{drawn_};
  WeightSource& source_;
  ArenaBytes bytes_;
  Replica replica_;
  Engine engine_{settings_, replica_, bytes_.saved};
};

EngineSettings widened(EngineSettings s) {
  s.products = Products::widened;
  return s;
}

class Fp8Training : public testing::TestWithParam<Scales> {};

// Rounding to e4m3 is off by 2⁻⁴/√3 = 3.6 % of a number at most, in the mean of its square; a gradient is a sum over
// products of two layers.
TEST_P(Fp8Training, IsCloseToWidenedWeightsAndNotTheSame) {
  Trained fp8(settings_of(DType::bf16), GetParam()), plain(widened(settings_of(DType::bf16)), GetParam());
  fp8.engine().accumulate_gradients(batch_of(1), 1);
  plain.engine().accumulate_gradients(batch_of(1), 1);
  const double off = distance(fp8.gradients(), plain.gradients());
  EXPECT_GT(off, 0.005);
  EXPECT_LT(off, 0.2);
  Trained one(settings_of(DType::bf16), GetParam()), other(widened(settings_of(DType::bf16)), GetParam());
  const std::vector<double> a = one.train(12), b = other.train(12);
  EXPECT_NE(a, b);
  // Two runs part by more and more: each of the first steps, and all of them together.
  for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(a[i] / b[i], 1, 0.01) << "step " << i + 1;
  EXPECT_NEAR(std::reduce(a.begin(), a.end()) / std::reduce(b.begin(), b.end()), 1, 0.01);
}

TEST_P(Fp8Training, RecomputesTheSameBits) {
  EngineSettings s = settings_of();
  Trained kept(s, GetParam());
  s.recompute = true;
  Trained again(s, GetParam());
  EXPECT_EQ(kept.train(2), again.train(2));
  EXPECT_EQ(kept.parameters(), again.parameters());
}

TEST_P(Fp8Training, ACheckpointContinuesToTheSameBits) {
  ScratchDirectory dir;
  Trained straight(settings_of(), GetParam()), first(settings_of(), GetParam()), second(settings_of(), GetParam());
  straight.train(3);
  first.train(2);
  save_checkpoint(dir.path(), {.step = 2, .identity = {{"model", "x"}}}, *first.replica().trainables,
                  first.replica().backend(), first.replica().device.mesh);
  second.replica().load(Checkpoint::open(dir / "step-2"));
  second.engine().train_step(batch_of(3), 3);
  EXPECT_EQ(second.parameters(), straight.parameters());
}

TEST_P(Fp8Training, HoldsWhatWidenedWeightsDo) {
  Trained fp8(settings_of(), GetParam()), plain(widened(settings_of()), GetParam());
  fp8.train(1);
  EXPECT_EQ(fp8.bytes(), plain.bytes());
  EXPECT_EQ(fp8.engine().peak().weights, fp8.bytes().weights);
  EXPECT_LE(fp8.engine().peak().scratch, fp8.bytes().scratch);
}

// A token's codes do not depend on its company, but for those that another order of sums turns over (fp8_products.h).
TEST_P(Fp8Training, PackingChangesSumsAlone) {
  EngineSettings s = settings_of();
  s.capacity.local_micro_batches = 1;
  Trained packed(s, GetParam());
  const Batch both = batch_of(1, {{23, 9}});
  const double loss = packed.engine().accumulate_gradients(both, 1);
  const std::vector<float> together = packed.gradients();
  s.capacity.local_micro_batches = 2;
  Trained apart(s, GetParam());
  Batch divided{.total = 2, .weight_sum = both.weight_sum, .tokens = both.tokens};
  const MicroBatch& m = both.micro_batches.front();
  for (const DocumentSpan& span : m.spans) {
    const auto part = [&](const auto& all) {
      const auto begin = all.begin() + span.begin;
      return std::remove_cvref_t<decltype(all)>(begin, begin + span.length);
    };
    divided.micro_batches.push_back({.tokens = part(m.tokens),
                                     .labels = part(m.labels),
                                     .weights = part(m.weights),
                                     .positions = part(m.positions),
                                     .documents = part(m.documents),
                                     .spans = {{0, span.length}},
                                     .index = static_cast<int64_t>(divided.micro_batches.size())});
  }
  EXPECT_NEAR(apart.engine().accumulate_gradients(divided, 1) / loss, 1, 1e-3);
  EXPECT_LT(distance(apart.gradients(), together), 0.01);
}

// Of a rank's parameters that are not cut, and of its slices: how far two ranks' gradients are off the whole's.
double off_by_tensor_parallelism(Scales scales) {
  Trained whole(settings_of(), scales);
  whole.engine().accumulate_gradients(batch_of(1), 1);
  std::map<std::string, std::vector<float>> all;
  const auto gradient = [](Trained& trained, const FactorSlice& f) {
    return values_of(view(trained.replica().adapter->gradients, f));
  };
  for (const FactorSlice& f : whole.replica().adapter->factors()) all[f.name] = gradient(whole, f);
  double difference = 0, size = 0;
  std::mutex mutex;
  run_on_threads({{Axis::tp, 2}}, [&](Mesh& mesh) {
    EngineSettings s = settings_of();
    Trained part(s, scales, mesh);
    part.engine().accumulate_gradients(batch_of(1), 1);
    const std::lock_guard lock(mutex);
    for (const FactorSlice& f : part.replica().adapter->factors()) {
      const std::vector<float> mine = gradient(part, f);
      for (int64_t i = 0; i < f.size(); ++i) {
        const int64_t row = f.row_begin + i / f.col_count, col = f.col_begin + i % f.col_count;
        const double expected = all[f.name][static_cast<size_t>(row * f.cols + col)];
        difference += std::pow(mine[static_cast<size_t>(i)] - expected, 2);
        size += std::pow(expected, 2);
      }
    }
  });
  return std::sqrt(difference / size);
}

// Blocks are the whole tensor's: sums in another order, and the codes that this turns over, are less than a rounding to
// e4m3 (2⁻⁴/√3). A scale a row is of the columns that a rank has: what is rounded differs, everywhere.
TEST(Fp8TensorParallel, SlicesHaveTheBlocksOfTheWholeAndRowsOfTheirOwn) {
  const double blocks = off_by_tensor_parallelism(Scales::blocks), rows = off_by_tensor_parallelism(Scales::rows);
  EXPECT_LT(blocks, 0.036);
  EXPECT_GT(rows, 2 * blocks);
  EXPECT_LT(rows, 0.2);
}

TEST_P(Fp8Training, ALossThatIsNoNumberUpdatesNothing) {
  Trained trained(settings_of(), GetParam());
  trained.replica().adapter->load([](const FactorSlice& f, float* to) {
    std::fill_n(to, f.size(), f.name.find("layers.0.self_attn.q_proj") == std::string::npos ? 0.1f : NAN);
  });
  const StepResult result = trained.engine().train_step(batch_of(1), 1);
  EXPECT_TRUE(std::isnan(result.loss));
  for (const float value : trained.parameters()) EXPECT_TRUE(value == 0.1f || std::isnan(value));
}

INSTANTIATE_TEST_SUITE_P(EveryScale, Fp8Training, testing::Values(Scales::blocks, Scales::rows),
                         [](const auto& info) { return info.param == Scales::blocks ? "blocks" : "rows"; });

TEST(Fp8Linears, SaysWhichMultiplyInFp8) {
  EngineSettings s = settings_of();
  EXPECT_EQ(fp8_linears(s, {}), "train.matmul: 14 of 14 frozen linears multiply in fp8");
  EXPECT_EQ(fp8_linears(s, {{Axis::tp, 2}}), fp8_linears(s, {}));
  s.model.kv_heads = 4;  // a rank of two has 64 rows of k and v
  EXPECT_EQ(fp8_linears(s, {}), "train.matmul: 14 of 14 frozen linears multiply in fp8");
  const std::string cut = fp8_linears(s, {{Axis::tp, 2}});
  for (const char* part :
       {"8 of 14", "in train.dtype", "parallel.tp", "k_proj of 2 layers, q_proj of 2 layers, v_proj"})
    EXPECT_NE(cut.find(part), std::string::npos) << part << " in " << cut;
  EXPECT_EQ(fp8_linears(widened(s), {}), "");
}

TEST(Fp8Linears, AreThereOrItIsRefused) {
  EngineSettings s = settings_of();
  for (const WeightsAs as : {WeightsAs::as_is, WeightsAs::dense, WeightsAs::nf4}) {
    s.weights = as;
    expect_error(Fault::bad_recipe,
                 {"train.matmul: fp8", as == WeightsAs::nf4 ? "nf4" : "plain numbers", "model.weights: fp8"},
                 [&] { fp8_linears(s, {}); });
  }
  s.weights = WeightsAs::fp8;
  s.model.hidden = 72, s.model.ffn = 72, s.model.head_dim = 10;
  expect_error(Fault::bad_recipe, {"train.matmul", "multiples of 16", "parallel.tp"}, [&] { fp8_linears(s, {}); });
}

}  // namespace
}  // namespace drover
