// A model directory that is made in one go or several, by one process or many: its weight files are dealt out over the
// processes, which have the same bytes for any number of them; of the model, pieces of some rows are in memory. Where
// it ends early (killed, io) what was finished stays next to its place (kept_directory.h), and whoever makes the same
// continues there; what is left of something else is removed, which is said.
#pragma once
#include <functional>
#include <map>
#include <string>

#include "kernels/comm/communicator.h"
#include "model/files/kept_directory.h"
#include "trainer/export/weight_part.h"

namespace drover {

// How the log names it: "merge", "merging", "merged".
struct DealtWords {
  const char *noun, *doing, *done;
};

struct DealtModel {
  fs::path out;
  DealtWords words;
  int64_t max_shard_bytes = 5'000'000'000;
  // What is written, the same on every process. May fail before anything is there.
  std::function<WeightParts()> parts;
  // Of what it is made, and how: whoever has the same writes the same bytes. Asked for on rank 0.
  std::function<std::string()> identity;
  // On rank 0, when all files are there with their index: config.json, and whatever else has to be right before the
  // directory gets its name. `updates`: by X.weight.
  using Updates = std::map<std::string, TensorUpdate>;
  std::function<void(const fs::path& directory, const Updates& updates)> finish;
};

// Collective over `world`. usage where something is at `out`; io where the disk has not the room; corruption where a
// file does not read as it was written.
void make_model(const DealtModel& model, Communicator& world);

}  // namespace drover
