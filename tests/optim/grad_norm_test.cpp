// The gradient's norm on any mesh is that of one rank, and what would count a matrix twice, or not at all, shows.
#include "optim/grad_norm.h"

#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "kernels/comm/threads.h"
#include "tests/optim/some_slices.h"

namespace drover {
namespace {

double squares_of(const std::vector<Slice>& slices, Mesh& mesh, int salt) {
  SomeTrainables some(slices);
  fill(some.trainables, some.trainables.gradients, salt);
  double squares = -1;
  GradNorm(some.trainables, kLayers).sum_squares(mesh, *some.backend, some.scratch, matrix(&squares, 1, 1));
  return squares;
}

using Change = std::function<void(std::vector<Slice>&)>;

// On every rank of a mesh, with what `change` makes of the slices.
std::vector<double> on_mesh(
    const MeshShape& shape, const Change& change = [](auto&) {}, int salt = 0) {
  std::vector<double> squares(static_cast<size_t>(shape.size()));
  run_on_threads(shape, [&](Mesh& mesh) {
    std::vector<Slice> slices = some_slices(mesh);
    change(slices);
    lay_out(std::span(slices));
    squares[static_cast<size_t>(mesh.world->rank())] = squares_of(slices, mesh, salt);
  });
  return squares;
}

double expected() {
  double sum = 0;
  for (const Slice& s : some_slices(make_self_mesh())) {
    for (int64_t i = 0; i < s.size(); ++i) sum += std::pow(static_cast<double>(some_value(s, i)), 2);
  }
  return sum;
}

TEST(GradNorm, IsOneNumberOnEveryMesh) {
  const MeshShape tp{{Axis::tp, 2}}, pp{{Axis::pp, 3}}, dp{{Axis::dp, 2}},
      all{{Axis::tp, 2}, {Axis::pp, 2}, {Axis::dp, 2}};
  for (const MeshShape& shape : {MeshShape{}, tp, pp, dp, all}) {
    const std::vector<double> squares = on_mesh(shape);
    for (double s : squares) {
      EXPECT_NEAR(s, expected(), 1e-13 * expected());
      EXPECT_EQ(s, squares.front());
    }
  }
}

// A pipeline does not change its bits, nor does the way in which the buffer is laid out.
TEST(GradNorm, ItsBitsAreTheModelsOrder) {
  const Change one_group = [](std::vector<Slice>& slices) {
    for (Slice& s : slices) s.group = 0;
  };
  const Change other_way_round = [](std::vector<Slice>& slices) {
    for (Slice& s : slices) s.group = 1 - s.group;
  };
  for (int salt = 0; salt < 20; ++salt) {
    const Change none = [](std::vector<Slice>&) {};
    const double plain = on_mesh({}, none, salt).front();
    EXPECT_EQ(on_mesh({{Axis::pp, 3}}, none, salt).front(), plain);
    EXPECT_EQ(on_mesh({}, one_group, salt).front(), plain);
    EXPECT_EQ(on_mesh({}, other_way_round, salt).front(), plain);
  }
}

TEST(GradNorm, AMatrixOfTheWrongKindIsNoticed) {
  const MeshShape two{{Axis::tp, 2}};
  const auto noticed = [&](const Change& change) {
    EXPECT_GT(std::abs(on_mesh(two, change).front() / expected() - 1), 1e-2);
  };
  noticed([](auto& slices) {  // half of it is forgotten
    Slice& s = slices[1];
    s.whole = true, s.rows = s.row_count, s.row_begin = 0;
  });
  noticed([](auto& slices) { slices[0].whole = false; });  // counted twice
}

TEST(GradNorm, ALayerOutsideTheModelIsRefused) {
  SomeTrainables some(some_slices(make_self_mesh()));
  EXPECT_THROW(GradNorm(some.trainables, kLayers - 1), Error);
}

}  // namespace
}  // namespace drover
