// A process among the ranks of a job: MPI, its share of the node's cores, and one way out for errors.
#pragma once
#include <functional>

#include "kernels/comm/mesh.h"
#include "launch/exit_code.h"

namespace drover {

struct Process {
  MpiWorld mpi;
  std::unique_ptr<Communicator> world;  // all ranks, for agreeing on what was asked before a mesh is made of it
  int threads = 1;
};

// The mesh of this job's ranks. Collective; the ranks have agreed on the shape.
Mesh make_mesh(const MeshShape& shape);

enum class OnStop : uint8_t {  // what a stop signal does
  save,                        // the run is saved (`train`)
  drain,                       // what was begun is finished (`serve`), and a second one ends the process
  end,                         // the process ends as any other
};

// The first thing that the program does, before any library is initialised and any thread is started: stop signals
// wait, closed descriptors are opened.
void prepare_process();

// Decides what stop signals do, starts MPI when a launcher started us, takes this rank's share of the cores
// (OMP_NUM_THREADS overrides the number of threads) and pins to it.
Process start_process(int* argc, char*** argv, OnStop on_stop);

// The ranks run one program, CUDA backend included: its content is compared. Collective.
void check_same_program(const Process& process);

// Runs a verb: an expected error is printed once and becomes its exit code on all ranks; anything unexpected is printed
// with the rank and ends all.
int guarded(const Process& process, const std::function<Exit()>& verb);

}  // namespace drover
