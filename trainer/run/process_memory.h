// What this process holds, what it will hold at its peak, and whether the machine has that much. Linux: /proc.
#pragma once
#include "kernels/comm/communicator.h"
#include "trainer/engine/engine.h"

namespace drover {

int64_t peak_process_bytes();       // VmHWM
int64_t current_process_bytes();    // VmRSS
int64_t available_machine_bytes();  // MemAvailable

// Collective. What this rank may still take: of its device's memory, or its part of what the machine has free.
int64_t free_bytes_of_rank(Communicator& world, Backend& backend);

// VmRSS after memory that was freed is the system's again: of a rank whose inputs are open, what it holds besides its
// arenas (program, tokenizer, data).
int64_t held_process_bytes();
// The peak of a process that holds so much and whose arenas are still to come: with the arenas, the backend's workspace
// for micro-batches of so many tokens, and what the libraries take once they work.
int64_t predicted_process_bytes(int64_t held, const ArenaBytes& arenas, Backend& backend, int64_t tokens);

// bad_recipe where a device's own memory cannot hold the arenas and the workspace.
void check_fits_memory(const ArenaBytes& arenas, Backend& backend);

// What metrics call peak_bytes: of the device's memory where the backend has one of its own, else of the process.
int64_t peak_bytes(Backend& backend);

// Collective. bad_recipe where the ranks of this machine would together need more memory than it has, naming both; a
// run would otherwise be killed on the way.
void check_fits_machine(Communicator& world, int64_t predicted_bytes);

}  // namespace drover
