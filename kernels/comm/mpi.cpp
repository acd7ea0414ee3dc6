// MPI's life in this process, and the mesh of communicators over it.
#include <mpi.h>

#include <cstdio>
#include <cstdlib>

#include "kernels/base/error.h"
#include "kernels/comm/launched.h"
#include "kernels/comm/mesh.h"
#include "kernels/comm/mpi_communicator.h"

namespace drover {

namespace {

bool mpi_is_up() {
  int started = 0, finished = 0;
  MPI_Initialized(&started);
  MPI_Finalized(&finished);
  return started != 0 && finished == 0;
}

int ranks_of_world() {
  int size = 1;
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
  return size;
}

// Collective over all ranks.
std::unique_ptr<Communicator> split(const char* name, int colour, int key) {
  MPI_Comm members = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(MPI_COMM_WORLD, colour, key, &members), "MPI_Comm_split");
  auto communicator = std::make_unique<MpiCommunicator>(name, members);
  MPI_Comm_free(&members);
  return communicator;
}

std::string library_name() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string name(text, static_cast<size_t>(length));
  return name.substr(0, name.find_first_of(",\n"));
}

}  // namespace

bool launched_by_mpi() {
  if (std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr || std::getenv("PMI_SIZE") != nullptr ||
      std::getenv("PMIX_RANK") != nullptr)
    return true;
  const char* tasks = std::getenv("SLURM_NTASKS");
  return std::getenv("SLURM_PROCID") != nullptr && tasks != nullptr && std::atoi(tasks) > 1;
}

int launched_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"}) {
    if (const char* text = std::getenv(name)) return std::atoi(text);
  }
  const char* task = launched_by_mpi() ? std::getenv("SLURM_PROCID") : nullptr;
  return task != nullptr ? std::atoi(task) : 0;
}

int launched_ranks() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    if (const char* text = std::getenv(name)) return std::atoi(text);
  }
  return 1;
}

MpiWorld start_mpi(int* argc, char*** argv) {
  int provided = MPI_THREAD_SINGLE;
  require(!mpi_is_up(), "MPI starts once");
  check_mpi(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  if (provided < MPI_THREAD_FUNNELED) {
    fail(Fault::io,
         "this MPI library cannot be used by a program with threads (MPI_THREAD_FUNNELED); build it with thread "
         "support");
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MpiWorld world;
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &world.rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &world.size), "MPI_Comm_size");
  if (world.size == 1 && launched_ranks() > 1) {
    fail(Fault::usage,
         "{} ranks were started, but each sees itself alone: the launcher belongs to another MPI than this program, "
         "which has {}; start it with that one's mpirun "
         "(DROVER_MPIRUN names it to launch/run), or by srun --mpi=pmix",
         launched_ranks(), library_name());
  }
  MPI_Comm node = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &node),
            "MPI_Comm_split_type");
  MPI_Comm_rank(node, &world.local_rank);
  MPI_Comm_size(node, &world.local_size);
  MPI_Comm_free(&node);
  return world;
}

void finish_mpi() {
  if (mpi_is_up()) MPI_Finalize();
}

void abort_all(int exit_code) {
  std::fflush(nullptr);
  if (mpi_is_up()) MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

std::unique_ptr<Communicator> make_world_communicator() {
  require(mpi_is_up(), "MPI has started before its ranks speak");
  if (ranks_of_world() == 1) return make_self_communicator("world");
  return std::make_unique<MpiCommunicator>("world", MPI_COMM_WORLD);
}

Mesh make_mpi_mesh(const MeshShape& shape) {
  require(mpi_is_up(), "MPI has started before the mesh is made");
  const int size = ranks_of_world();
  if (shape.size() != size) {
    fail(Fault::bad_recipe,
         "parallel: tp {} × pp {} × dp {} is {} ranks, but {} were started; start that many or change the recipe",
         shape.tp(), shape.pp(), shape.dp(), shape.size(), size);
  }
  return make_mesh(shape, make_world_communicator(),
                   [](Axis axis, int colour, int key) { return split(name_of(axis), colour, key); });
}

}  // namespace drover
