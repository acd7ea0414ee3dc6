// The axes of the grid of ranks, innermost first, and what has one value per axis.
//   tp tensor parallel: splits the products of a layer · cp context parallel: the tokens of a row
//   pp pipeline parallel: the layers · dp data parallel: the batch
// rank = ((dp·PP + pp)·CP + cp)·TP + tp.
#pragma once
#include <array>
#include <cstddef>
#include <initializer_list>

#include "kernels/base/require.h"

namespace drover {

enum class Axis { tp, cp, pp, dp };
inline constexpr std::array kAxes{Axis::tp, Axis::cp, Axis::pp, Axis::dp};

constexpr const char* name_of(Axis axis) { return std::array{"tp", "cp", "pp", "dp"}[static_cast<size_t>(axis)]; }

template <typename T>
class PerAxis {
 public:
  constexpr T& operator[](Axis axis) { return values_[static_cast<size_t>(axis)]; }
  constexpr const T& operator[](Axis axis) const { return values_[static_cast<size_t>(axis)]; }
  bool operator==(const PerAxis&) const = default;

 private:
  std::array<T, kAxes.size()> values_{};
};

// Numbers by axis: those that are named, and `kOther` on every other axis.
template <int kOther>
struct AxisNumbers : PerAxis<int> {
  struct Named {
    Axis axis;
    int number;
  };
  constexpr AxisNumbers() : AxisNumbers(std::initializer_list<Named>{}) {}
  constexpr AxisNumbers(std::initializer_list<Named> named) {
    for (const Axis axis : kAxes) (*this)[axis] = kOther;
    for (const Named& n : named) (*this)[n.axis] = n.number;
  }
  constexpr int tp() const { return (*this)[Axis::tp]; }
  constexpr int cp() const { return (*this)[Axis::cp]; }
  constexpr int pp() const { return (*this)[Axis::pp]; }
  constexpr int dp() const { return (*this)[Axis::dp]; }
  bool operator==(const AxisNumbers&) const = default;
};

// Ranks along each axis: MeshShape{{Axis::tp, 2}, {Axis::dp, 4}} is 2·1·1·4.
struct MeshShape : AxisNumbers<1> {
  using AxisNumbers::AxisNumbers;
  constexpr int size() const {
    int product = 1;
    for (const Axis axis : kAxes) product *= (*this)[axis];
    return product;
  }
};

// A rank's coordinates, from 0.
struct MeshPosition : AxisNumbers<0> {
  using AxisNumbers::AxisNumbers;
};

inline MeshPosition position_of(int rank, const MeshShape& shape) {
  require(rank >= 0 && rank < shape.size(), "a rank of the mesh");
  MeshPosition position;
  for (const Axis axis : kAxes) {
    position[axis] = rank % shape[axis];
    rank /= shape[axis];
  }
  return position;
}

inline int rank_of(const MeshPosition& position, const MeshShape& shape) {
  int rank = 0;
  for (size_t i = kAxes.size(); i-- > 0;) rank = rank * shape[kAxes[i]] + position[kAxes[i]];  // the outermost first
  return rank;
}

}  // namespace drover
