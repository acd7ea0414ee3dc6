// What launchers say of a job before MPI has started.
#pragma once

namespace drover {

// How many ranks a launcher says it has started: mpirun's of Open MPI, of MPICH (Hydra), srun. 1 where none does.
int launched_ranks();

}  // namespace drover
