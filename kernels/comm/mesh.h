// The grid of ranks with a communicator along each axis (kernels/base/mesh_shape.h), and MPI's life.
#pragma once
#include <functional>
#include <memory>

#include "kernels/base/mesh_shape.h"
#include "kernels/comm/communicator.h"
#include "kernels/comm/deadline.h"

namespace drover {

// A copy shares the communicators.
struct Mesh {
  MeshShape shape;
  MeshPosition position;
  std::shared_ptr<Communicator> world;
  PerAxis<std::shared_ptr<Communicator>> axes;
  Communicator& tp() const { return *axes[Axis::tp]; }
  Communicator& cp() const { return *axes[Axis::cp]; }
  Communicator& pp() const { return *axes[Axis::pp]; }
  Communicator& dp() const { return *axes[Axis::dp]; }
};

// All that a transport knows of axes: the ranks of the world that call with one `colour` become a communicator, in the
// order of their keys, which count from 0. Collective over the world, axis by axis.
using SplitWorld = std::function<std::shared_ptr<Communicator>(Axis axis, int colour, int key)>;

// Every mesh is made here, from the communicator of all ranks. An axis of one rank has it everywhere: it is Self, and
// nothing is split.
Mesh make_mesh(const MeshShape& shape, std::shared_ptr<Communicator> world, const SplitWorld& split);

Mesh make_self_mesh();  // one rank, no MPI
// For plans: any mesh in one process. overlaps_sums: of the communicators that are counted for. The observer, which
// outlives the mesh, sees the calls of all axes with more than one rank.
class CommObserver;
Mesh make_count_mesh(const MeshShape& shape, const MeshPosition& position, bool overlaps_sums = false,
                     CommObserver* observer = nullptr);
Mesh make_mpi_mesh(const MeshShape& shape);               // after start_mpi; shape.size() == world size
std::unique_ptr<Communicator> make_world_communicator();  // after start_mpi: all ranks, before there is a mesh

// MPI's life: FUNNELED, initialised once when the process was started by a launcher (or when asked), finalised at the
// end of main.
struct MpiWorld {
  int rank = 0, size = 1, local_rank = 0, local_size = 1;
};
bool launched_by_mpi();  // by the environment that launchers set: OMPI_COMM_WORLD_SIZE, PMI_SIZE, PMIX_RANK,
                         // SLURM_PROCID with SLURM_NTASKS > 1
int launched_rank();     // by the same environment, before MPI has started; 0 where no launcher says
MpiWorld start_mpi(int* argc, char*** argv);
void finish_mpi();
[[noreturn]] void abort_all(int exit_code);  // MPI_Abort where MPI is up, else exit

}  // namespace drover
