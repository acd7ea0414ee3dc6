// What trains in these tests: of every layer two matrices of each kind, whole and split over tp, in two groups;
// gradients by global element index.
#pragma once
#include <cmath>
#include <memory>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/comm/mesh.h"
#include "kernels/cpu/cpu_backend.h"
#include "optim/trainables.h"

namespace drover {

inline constexpr int64_t kLayers = 3;

// As a model with A and B factors names them: whole A, split B, split A, whole B, so that neither kind nor group is in
// one piece.
inline std::vector<Slice> some_slices(const Mesh& mesh) {
  struct Kind {
    const char* name;
    int group;
    bool whole;
    int64_t rows, cols;
  };
  constexpr Kind kKinds[] = {{"q.a", 0, true, 3, 10},
                             {"q.b", 1, false, 8, 3},
                             {"o.a", 0, false, 6, 5},
                             {"o.b", 1, true, 7, 2},
                             {"up.a", 0, true, 2, 9}};
  std::vector<Slice> slices;
  for (int64_t layer = kLayers * mesh.position.pp() / mesh.shape.pp();
       layer < kLayers * (mesh.position.pp() + 1) / mesh.shape.pp(); ++layer) {
    for (const Kind& k : kKinds) {
      const int64_t rows = k.whole ? k.rows : k.rows / mesh.shape.tp();
      slices.push_back({.name = fmt::format("{}.{}", layer, k.name),
                        .layer = layer,
                        .group = k.group,
                        .whole = k.whole,
                        .rows = k.rows,
                        .cols = k.cols,
                        .row_begin = k.whole ? 0 : rows * mesh.position.tp(),
                        .row_count = rows,
                        .col_count = k.cols});
    }
  }
  lay_out(std::span(slices));
  return slices;
}

// Of element `index` of the whole matrix; the same on every mesh. Of very unequal sizes, so that the bits of a sum tell
// its order.
inline float some_value(const Slice& s, int64_t index, int salt = 0) {
  const double seed = static_cast<double>(s.layer) + static_cast<double>(s.name.back()) + salt;
  const double i = static_cast<double>(index);
  return static_cast<float>(std::sin(0.7 * i + seed) * std::exp(4 * std::sin(1.3 * i + 2 * seed)));
}

inline void fill(const Trainables& t, Tensor flat, int salt = 0) {
  for (const Slice& s : t.slices()) {
    const Tensor part = view(flat, s);
    for (int64_t i = 0; i < s.size(); ++i) part.as<float>()[i] = some_value(s, s.row_begin * s.cols + i, salt);
  }
}

// Parameters, gradients and moments in host memory.
struct SomeTrainables {
  explicit SomeTrainables(std::vector<Slice> slices) : trainables(std::move(slices), *backend, arena, &arena) {
    fill(trainables, trainables.parameters, 5);
    fill(trainables, trainables.gradients);
  }
  std::unique_ptr<Backend> backend = make_cpu_backend(1);
  Arena arena{"trainables", backend->memory(), 1 << 20}, scratch{"scratch", backend->memory(), 1 << 20};
  Trainables trainables;
};

}  // namespace drover
