// The loss of many rows, taken in chunks, against each row by itself in double; and the gradient against differences of
// that loss.
#include "model/head.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/arena.h"
#include "kernels/cpu/cpu_backend.h"

namespace drover {
namespace {

constexpr int64_t kHidden = 6, kVocab = 11;

ModelConfig model() {
  ModelConfig c;
  c.hidden = kHidden, c.vocab = kVocab, c.layers = 0;
  return c;
}

struct Problem {
  int64_t rows, trained;
  std::vector<float> x, w, weights;
  std::vector<int32_t> index, labels;
  explicit Problem(int64_t n) : rows(n + 3), trained(n) {
    std::mt19937 draw(7);
    std::normal_distribution<float> normal(0, 1);
    const auto drawn = [&](int64_t count) {
      std::vector<float> v(static_cast<size_t>(count));
      for (float& value : v) value = normal(draw);
      return v;
    };
    x = drawn(rows * kHidden), w = drawn(kVocab * kHidden), weights = drawn(n);
    index.resize(static_cast<size_t>(n));
    std::iota(index.begin(), index.end(), 2);  // rows 0, 1 and the last are not trained
    for (int64_t i = 0; i < n; ++i) labels.push_back(static_cast<int32_t>((i * 5 + 3) % kVocab));
  }
  // log p of trained row i, whose x is given.
  double logprob(int64_t i, const std::vector<double>& row) const {
    double squares = 0, sum = 0, own = 0;
    for (const double v : row) squares += v * v;
    const double scale = 1 / std::sqrt(squares / kHidden + 1e-5);
    for (int64_t token = 0; token < kVocab; ++token) {
      double logit = 0;
      for (int64_t j = 0; j < kHidden; ++j)
        logit += row[static_cast<size_t>(j)] * scale * static_cast<double>(w[static_cast<size_t>(token * kHidden + j)]);
      sum += std::exp(logit);
      if (token == labels[static_cast<size_t>(i)]) own = logit;
    }
    return own - std::log(sum);
  }
  std::vector<double> row(int64_t i) const {
    const auto begin = x.begin() + (i + 2) * kHidden;
    return {begin, begin + kHidden};
  }
};

// A chunk and its neighbours; several chunks, the last of them short.
TEST(Head, EveryRowOfEveryChunk) {
  ASSERT_EQ(Head::chunk_rows(kVocab), 512);
  const auto backend = make_cpu_backend(1);
  for (const int64_t n : {1, 511, 512, 513, 1300}) {
    SCOPED_TRACE(n);
    const Problem p(n);
    Arena arena("head", backend->memory(), int64_t{4} << 20), scratch("scratch", backend->memory(), int64_t{4} << 20);
    const auto put = [&](const auto& values, int64_t rows, int64_t cols, DType dtype) {
      const Tensor t = arena.tensor(rows, cols, dtype);
      backend->upload(values.data(), t);
      return t;
    };
    const auto tp = make_self_communicator("tp");
    const auto weight = std::make_shared<DenseWeight>(put(p.w, kVocab, kHidden, DType::f32));
    const Head head{.norm = {.weight = put(std::vector<float>(kHidden, 1), kHidden, 1, DType::f32)},
                    .linear = LinearGroup(model(), 0, {Projection::head}, {}, *tp, weight, nullptr),
                    .share = vocabulary_share(kVocab, 0, 1),
                    .tp = tp.get()};
    Context ctx{.backend = *backend,
                .scratch = scratch,
                .rope = {},
                .ids = {},
                .positions = {},
                .documents = {},
                .segments = {},
                .dropout = {},
                .cache_rows = {}};
    const Tensor x = put(p.x, p.rows, kHidden, DType::f32), dx = arena.tensor(p.rows, kHidden, DType::f32),
                 logprob = arena.tensor(n, 1, DType::f32);
    head.loss(ctx, x, put(p.index, n, 1, DType::i32), put(p.labels, n, 1, DType::i32), put(p.weights, n, 1, DType::f32),
              logprob, dx);

    const float *found = logprob.as<float>(), *gradient = dx.as<float>();
    for (int64_t i = 0; i < n; ++i) {
      std::vector<double> row = p.row(i);
      EXPECT_NEAR(found[i], p.logprob(i, row), 1e-5) << "row " << i;
      for (size_t j = 0; j < row.size(); ++j) {
        constexpr double kStep = 1e-5;
        const double at = row[j];
        row[j] = at + kStep;
        const double above = p.logprob(i, row);
        row[j] = at - kStep;
        const double below = p.logprob(i, row);
        row[j] = at;
        const double weight = static_cast<double>(p.weights[static_cast<size_t>(i)]);
        EXPECT_NEAR(gradient[(i + 2) * kHidden + static_cast<int64_t>(j)], -weight * (above - below) / (2 * kStep),
                    2e-5 * (1 + std::abs(weight)))
            << "row " << i << " column " << j;
      }
    }
    for (const int64_t untrained : {int64_t{0}, int64_t{1}, p.rows - 1}) {
      for (int64_t j = 0; j < kHidden; ++j) EXPECT_EQ(gradient[untrained * kHidden + j], 0);
    }
  }
}

// The gradients of an adapter are added up over the chunks: as over calls that each fit into one.
TEST(Head, AnAdapterTrainsOnEveryChunk) {
  constexpr int64_t kTrained = 1300, kPart = 325, kRank = 3;
  const auto backend = make_cpu_backend(1);
  const Problem p(kTrained);
  Arena arena("head", backend->memory(), int64_t{4} << 20), scratch("scratch", backend->memory(), int64_t{4} << 20);
  const auto put = [&](const auto& values, int64_t rows, int64_t cols, DType dtype) {
    const Tensor t = arena.tensor(rows, cols, dtype);
    backend->upload(values.data(), t);
    return t;
  };
  const auto tp = make_self_communicator("tp");
  AdapterLayout layout = empty_layout(model());
  layout.back()[static_cast<size_t>(Projection::head)] = LowRankSpec{kRank, 0.5f};
  const std::vector<FactorSlice> factors = factor_slices(model(), layout, {});
  const int64_t size = size_of(std::span<const FactorSlice>(factors));
  ASSERT_EQ(size, kRank * (kHidden + kVocab));
  const Tensor parameters = arena.tensor(size, 1, DType::f32), gradients = arena.tensor(size, 1, DType::f32);
  AdapterSet adapter(layout, factors, parameters, gradients, DType::f32, *backend, arena);
  adapter.load([](const FactorSlice& f, float* values) {
    for (int64_t i = 0; i < f.size(); ++i) values[i] = static_cast<float>((i * 7) % 5 - 2) / 4;
  });
  const auto weight = std::make_shared<DenseWeight>(put(p.w, kVocab, kHidden, DType::f32));
  const Head head{.norm = {.weight = put(std::vector<float>(kHidden, 1), kHidden, 1, DType::f32)},
                  .linear = LinearGroup(model(), 0, {Projection::head}, {}, *tp, weight, &adapter),
                  .share = vocabulary_share(kVocab, 0, 1),
                  .tp = tp.get()};
  const Tensor x = put(p.x, p.rows, kHidden, DType::f32), index = put(p.index, kTrained, 1, DType::i32),
               labels = put(p.labels, kTrained, 1, DType::i32), weights = put(p.weights, kTrained, 1, DType::f32),
               dx = arena.tensor(p.rows, kHidden, DType::f32), logprob = arena.tensor(kTrained, 1, DType::f32);
  const auto gradients_by = [&](int64_t rows) {
    backend->zero(gradients);
    for (int64_t begin = 0; begin < kTrained; begin += rows) {
      Context ctx{.backend = *backend,
                  .scratch = scratch,
                  .rope = {},
                  .ids = {},
                  .positions = {},
                  .documents = {},
                  .segments = {},
                  .dropout = {},
                  .cache_rows = {}};
      head.loss(ctx, x, index.rows_from(begin, rows), labels.rows_from(begin, rows), weights.rows_from(begin, rows),
                logprob.rows_from(begin, rows), dx);
    }
    return std::vector<float>(gradients.as<float>(), gradients.as<float>() + size);
  };
  const std::vector<float> in_chunks = gradients_by(kTrained), in_parts = gradients_by(kPart);
  for (size_t i = 0; i < in_chunks.size(); ++i) {
    EXPECT_GT(std::abs(in_chunks[i]), 1e-3) << i;
    EXPECT_NEAR(in_chunks[i], in_parts[i], 1e-4 * (1 + std::abs(in_parts[i]))) << i;
  }
}

}  // namespace
}  // namespace drover
