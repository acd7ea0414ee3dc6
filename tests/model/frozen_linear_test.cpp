// A tensor-parallel rank's weight holds the codes and the scales of the whole one, bit for bit, wherever its blocks are
// cut; and what cannot be cut is refused.
#include "model/frozen_linear.h"

#include <gtest/gtest.h>

#include "kernels/base/nf4.h"
#include "kernels/base/quantise.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/quantised_weight.h"
#include "model/base_weights.h"
#include "model/dense_pieces.h"
#include "tests/files/quantised_files.h"
#include "tests/support/made_up.h"

namespace drover {
namespace {

using Members = std::vector<Projection>;

const std::vector<Members> kGroups = {{Projection::q, Projection::k, Projection::v},
                                      {Projection::o},
                                      {Projection::gate, Projection::up},
                                      {Projection::down}};

// All weights are cut inside blocks of 128 by tp 2 and 3; 384 rows of blocks of 64 reach over two runs of 256.
ModelConfig made_up_model() {
  ModelConfig c;
  c.hidden = 64, c.layers = 1, c.heads = 12, c.kv_heads = 6, c.head_dim = 32, c.ffn = 384, c.vocab = 64;
  return c;
}

// The frozen weight of linears that read one input, as a rank of tp holds it, in tensors that keep double quantisation.
struct Held {
  Held(const ModelConfig& config, WeightSource& source, WeightsAs as, const Members& members, int rank, int tp,
       int threads = 1) {
    const std::vector<ParamSpec> table = weight_table(config);
    for (const Projection p : members) {
      const std::string name = module_path(0, p) + ".weight";
      const ParamSpec& spec = *std::ranges::find(table, name, &ParamSpec::name);
      slices.push_back({&spec, {0, spec.rows}, {0, spec.cols}});
      (spec.split == Split::output ? slices.back().rows : slices.back().cols) =
          share_of(spec.split == Split::output ? spec.rows : spec.cols, rank, tp);
    }
    const FrozenLinear linear(slices, source, {.weights = as, .threads = threads});
    weight = lay_out_quantised(arena, linear.shape(0));
    linear.load(*weight, *backend);
    for (LinearSlice& slice : slices) slice.spec = nullptr;
  }
  std::shared_ptr<Backend> backend = make_cpu_backend(1);
  Arena arena{"weights", backend->memory(), 4 << 20};
  std::vector<LinearSlice> slices;
  std::unique_ptr<Weight> weight;
};

// One element as it is held: its code, and every number that scales it.
using Element = std::vector<float>;

template <typename T>
T at(Tensor t, int64_t row, int64_t col) {
  return t.as<T>()[row * t.pitch + col];
}

Element element(const Weight& weight, int64_t i, int64_t j) {
  if (weight.format() == Format::fp8) {
    const auto& w = static_cast<const Fp8Weight&>(weight);
    const int64_t block = w.blocks.columns == 0 ? 0 : (w.column_phase + j) / w.blocks.columns;
    return {static_cast<float>(at<uint8_t>(w.codes, i, j)), at<float>(w.scales, at<int32_t>(w.scale_row, i, 0), block)};
  }
  const auto& w = static_cast<const Nf4Weight&>(weight);
  const uint8_t pair = at<uint8_t>(w.codes, i, j / 2);
  const float code = static_cast<float>(j % 2 == 0 ? pair >> 4 : pair & 15);
  const int64_t block = j / kNf4Block;
  if (!w.nested()) return {code, at<float>(w.absmax, i, block)};
  const uint8_t absmax = at<uint8_t>(w.absmax, i, block);
  const int64_t run = (at<int32_t>(w.first_block, i, 0) + block) / kNf4NestedBlock;
  return {code, static_cast<float>(absmax), at<float>(w.levels, absmax, 0), at<float>(w.nested_absmax, run, 0),
          at<float>(w.offset, i, 0)};
}

// How many elements of the weights that the ranks of tp hold are not those of the whole.
int64_t differences(const ModelConfig& config, WeightSource& source, WeightSource& of_ranks, WeightsAs as, int tp) {
  int64_t different = 0;
  for (const Members& members : kGroups) {
    const Held whole(config, source, as, members, 0, 1);
    for (int rank = 0; rank < tp; ++rank) {
      const Held held(config, of_ranks, as, members, rank, tp);
      int64_t row = 0, whole_row = 0;
      for (size_t m = 0; m < members.size(); ++m) {
        const LinearSlice& slice = held.slices[m];
        for (int64_t i = 0; i < slice.rows.count; ++i, ++row) {
          for (int64_t j = 0; j < slice.cols.count; ++j) {
            different += element(*held.weight, row, j) !=
                         element(*whole.weight, whole_row + slice.rows.begin + i, slice.cols.begin + j);
          }
        }
        whole_row += whole.slices[m].rows.count;
      }
    }
  }
  return different;
}

class FrozenSlices : public testing::TestWithParam<WeightsAs> {};

TEST_P(FrozenSlices, HoldTheBitsOfTheWholeWhereTheyAreMade) {
  VariedWeights drawn(11, 0.15f, 0.5f);
  for (const int tp : {2, 3}) EXPECT_EQ(differences(made_up_model(), drawn, drawn, GetParam(), tp), 0) << tp;
}

std::vector<uint8_t> bytes_of(const Weight& weight) {
  const auto of = [](std::initializer_list<Tensor> tensors) {
    std::vector<uint8_t> bytes;
    for (const Tensor& t : tensors) {
      const auto* first = static_cast<const uint8_t*>(t.data);
      bytes.insert(bytes.end(), first, first + t.bytes());
    }
    return bytes;
  };
  if (weight.format() == Format::fp8) {
    const auto& w = static_cast<const Fp8Weight&>(weight);
    return of({w.codes, w.scales, w.scale_row});
  }
  const auto& w = static_cast<const Nf4Weight&>(weight);
  return of({w.codes, w.absmax, w.nested_absmax, w.offset});
}

TEST_P(FrozenSlices, AreTheSameOfAnyNumberOfThreads) {
  ModelConfig config = made_up_model();
  config.hidden = 512, config.ffn = 1536;
  VariedWeights drawn(11, 0.15f, 0.5f);
  const Held alone(config, drawn, GetParam(), {Projection::up}, 1, 2);
  ASSERT_GT(alone.weight->out() * alone.weight->in(), kFloatsOfAThread) << "there are several pieces";
  for (const int threads : {2, 5}) {
    const Held together(config, drawn, GetParam(), {Projection::up}, 1, 2, threads);
    EXPECT_EQ(bytes_of(*together.weight), bytes_of(*alone.weight)) << threads;
  }
}

// Plain numbers of which every slice is quantised by itself, as codes of a file.
class QuantisedByThemselves : public WeightSource {
 public:
  QuantisedByThemselves(WeightSource& inner, WeightsAs as) : inner_(inner), as_(as) {}
  void read(const ParamSpec&, int64_t, int64_t, Tensor) override { FAIL() << "codes are read"; }
  std::optional<StoredScaling> scaling(const ParamSpec&) override {
    if (as_ == WeightsAs::fp8) return StoredScaling{StoredScaling::Kind::fp8, kMadeBlocks};
    return StoredScaling{.kind = StoredScaling::Kind::nf4, .nested = true};
  }
  Fp8Slice read_fp8(const ParamSpec& spec, Range rows, Range cols) override {
    const std::vector<float> mine = values(spec, rows, cols);
    Fp8Slice made = make_fp8(mine, 0, rows.count, 0, cols.count);
    made.row = rows.begin, made.col = cols.begin;
    made.scales.resize(static_cast<size_t>(blocks_touched(made.row, made.rows, made.blocks.rows) *
                                           blocks_touched(made.col, made.cols, made.blocks.columns)),
                       made.scales.back());
    return made;
  }
  Nf4Slice read_nf4(const ParamSpec& spec, Range rows, Range cols) override {
    const std::vector<float> mine = values(spec, rows, cols);
    std::vector<float> absmax;
    for (size_t i = 0; i < mine.size(); i += kNf4Block)
      absmax.push_back(largest_magnitude({mine.data() + i, static_cast<size_t>(kNf4Block)}));
    Nf4Slice made = Nf4Scales(absmax, cols.count).make(mine, 0, rows.count, 0, cols.count);
    made.row = rows.begin, made.col = cols.begin, made.whole_cols = spec.cols;
    made.nested.resize(3, made.nested.back());
    return made;
  }

 private:
  std::vector<float> values(const ParamSpec& spec, Range rows, Range cols) {
    std::vector<float> result(static_cast<size_t>(rows.count * cols.count));
    inner_.read(spec, rows.begin, cols.begin, matrix(result.data(), rows.count, cols.count));
    return result;
  }
  WeightSource& inner_;
  WeightsAs as_;
};

TEST_P(FrozenSlices, QuantisedByThemselvesAreNoticed) {
  VariedWeights drawn(11, 0.15f, 0.5f);
  QuantisedByThemselves alone(drawn, GetParam());
  EXPECT_EQ(differences(made_up_model(), drawn, alone, GetParam(), 1), 0) << "of the whole they are the same";
  EXPECT_GT(differences(made_up_model(), drawn, alone, GetParam(), 2), 0);
}

INSTANTIATE_TEST_SUITE_P(Formats, FrozenSlices, testing::Values(WeightsAs::fp8, WeightsAs::nf4),
                         [](const auto& info) { return info.param == WeightsAs::fp8 ? "fp8" : "nf4"; });

class FrozenFiles : public testing::TestWithParam<std::string> {};

// tp 2 cuts the 320 columns of down inside a block of either format.
TEST_P(FrozenFiles, SlicesHoldTheBitsOfTheWhole) {
  ModelDirectory model(golden_directory(GetParam()));
  BaseWeights weights(model);
  if (GetParam().starts_with("nf4")) {
    expect_error(Fault::bad_recipe, {"model.weights", "parallel.tp", "320 columns", "down_proj.weight", "160", "64"},
                 [&] { differences(weights.config(), weights, weights, WeightsAs::as_is, 2); });
    return;
  }
  // fbgemm's attention is plain.
  EXPECT_EQ(differences(weights.config(), weights, weights, WeightsAs::fp8, 2), 0);
}

INSTANTIATE_TEST_SUITE_P(Layouts, FrozenFiles, testing::ValuesIn(kLayouts), [](const auto& info) {
  std::string name = info.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

TEST(FrozenLinear, NF4OfColumnsThatAreNoBlocksIsRefused) {
  ModelConfig config = made_up_model();
  config.hidden = 96;
  VariedWeights drawn(11, 0.15f, 0.5f);
  expect_error(Fault::bad_recipe, {"model.weights", "q_proj.weight", "96 columns", "64", "fp8"},
               [&] { Held(config, drawn, WeightsAs::nf4, kGroups[0], 0, 1); });
}

}  // namespace
}  // namespace drover
