#include "kernels/comm/mesh.h"

#include "kernels/comm/count.h"

namespace drover {

Mesh make_mesh(const MeshShape& shape, std::shared_ptr<Communicator> world, const SplitWorld& split) {
  require(world->size() == shape.size(), "a mesh has as many ranks as its world");
  Mesh mesh{shape, position_of(world->rank(), shape), world, {}};
  for (const Axis axis : kAxes) {
    if (shape[axis] == 1) {
      mesh.axes[axis] = make_self_communicator(name_of(axis));
      continue;
    }
    MeshPosition lowest = mesh.position;  // of the group: its colour
    lowest[axis] = 0;
    mesh.axes[axis] = split(axis, rank_of(lowest, shape), mesh.position[axis]);
  }
  return mesh;
}

Mesh make_self_mesh() { return make_mesh({}, make_self_communicator("world"), {}); }

Mesh make_count_mesh(const MeshShape& shape, const MeshPosition& position, bool overlaps_sums, CommObserver* observer) {
  return make_mesh(shape, std::make_shared<CountCommunicator>("world", rank_of(position, shape), shape.size()),
                   [&](Axis axis, int, int key) {
                     return std::make_shared<CountCommunicator>(name_of(axis), key, shape[axis], overlaps_sums,
                                                                observer);
                   });
}

}  // namespace drover
