// The grid of ranks: axes tp → pp → dp, innermost first. rank = (dp·PP + pp)·TP + tp.
#pragma once
#include <memory>

#include "kernels/comm/communicator.h"
#include "kernels/comm/deadline.h"

namespace drover {

struct MeshShape {
  int tp = 1, pp = 1, dp = 1;
  int size() const { return tp * pp * dp; }
};

struct MeshPosition {
  int tp = 0, pp = 0, dp = 0;
};

MeshPosition position_of(int rank, const MeshShape& shape);
int rank_of(const MeshPosition& position, const MeshShape& shape);

// A copy shares the communicators.
struct Mesh {
  MeshShape shape;
  MeshPosition position;
  std::shared_ptr<Communicator> world, tp, pp, dp;
};

Mesh make_self_mesh();                                                     // one rank, no MPI
Mesh make_count_mesh(const MeshShape& shape, const MeshPosition& position);  // for plans: any mesh in one process
Mesh make_mpi_mesh(const MeshShape& shape);                                // after start_mpi; shape.size() == world size
std::unique_ptr<Communicator> make_world_communicator();                   // after start_mpi: all ranks, before there is a mesh

// MPI's life: FUNNELED, initialised once when the process was started by a launcher (or when asked), finalised at the end of main.
struct MpiWorld {
  int rank = 0, size = 1, local_rank = 0, local_size = 1;
};
bool launched_by_mpi();  // by the environment that launchers set: OMPI_COMM_WORLD_SIZE, PMI_SIZE, PMIX_RANK, SLURM_PROCID with SLURM_NTASKS > 1
int launched_rank();     // by the same environment, before MPI has started; 0 where no launcher says
MpiWorld start_mpi(int* argc, char*** argv);
void finish_mpi();
[[noreturn]] void abort_all(int exit_code);  // MPI_Abort where MPI is up, else exit

}  // namespace drover
