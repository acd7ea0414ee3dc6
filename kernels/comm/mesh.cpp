#include "kernels/comm/mesh.h"

#include "kernels/comm/count.h"

namespace drover {

MeshPosition position_of(int rank, const MeshShape& shape) {
  require(rank >= 0 && rank < shape.size(), "a rank of the mesh");
  return {rank % shape.tp, rank / shape.tp % shape.pp, rank / (shape.tp * shape.pp)};
}

int rank_of(const MeshPosition& position, const MeshShape& shape) {
  return (position.dp * shape.pp + position.pp) * shape.tp + position.tp;
}

Mesh make_self_mesh() {
  return {{}, {}, make_self_communicator("world"), make_self_communicator("tp"), make_self_communicator("pp"), make_self_communicator("dp")};
}

Mesh make_count_mesh(const MeshShape& shape, const MeshPosition& position) {
  const auto axis = [](const char* name, int rank, int size) { return std::make_unique<CountCommunicator>(name, rank, size); };
  return {shape,
          position,
          axis("world", rank_of(position, shape), shape.size()),
          axis("tp", position.tp, shape.tp),
          axis("pp", position.pp, shape.pp),
          axis("dp", position.dp, shape.dp)};
}

}  // namespace drover
