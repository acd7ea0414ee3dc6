// Checkpoints: output.dir/step-N/ with one HDF5 file per writing rank and manifest.json. Everything is written under a
// temporary name, fsynced and renamed, so a directory called step-N is whole; what counts as the latest is the newest
// one whose manifest and hashes verify. A checkpoint holds named global tensors (parameters and both moments of all
// that trains, each with the slice that a file has), the stream position and the run's identity: any mesh reads any
// mesh's. The adapter lies there in PEFT's form too (step-N/adapter/, fp32), for programs that read no HDF5.
#pragma once
#include <map>
#include <memory>
#include <optional>

#include "kernels/base/file.h"
#include "kernels/base/json.h"
#include "kernels/comm/mesh.h"
#include "model/files/adapter_config.h"
#include "model/files/peft.h"
#include "optim/trainables.h"
#include "trainer/run/best_validation.h"

namespace drover {

struct CheckpointState {
  int64_t step = 0;  // optimizer steps done
  std::map<std::string, std::string>
      identity;                          // recipe keys that must not change, plus "model" and "data" fingerprints
  int64_t epoch = 0, step_in_epoch = 0;  // the next batch
  AdapterConfig adapter;                 // what is trained: a checkpoint can be exported without its recipe
  BestValidation best;
};

// Collective over mesh.world. io when it cannot be written, also because a directory of that step is there.
void save_checkpoint(const fs::path& run, const CheckpointState& state, const Trainables& trainables, Backend& backend,
                     const Mesh& mesh);

// A checkpoint that verified: every file has the size and SHA-256 that the manifest states. As long as it is open it is
// not pruned.
class Checkpoint {
 public:
  // bad_data or corruption (a hash differs) with the file that is wrong; io where the checkpoint is removed meanwhile.
  static Checkpoint open(const fs::path& directory);
  // The newest of run/step-* that verifies; `warn` hears of every newer one that does not.
  static std::optional<Checkpoint> latest(const fs::path& run, const std::function<void(const std::string&)>& warn);

  const fs::path& directory() const { return directory_; }
  const CheckpointState& state() const { return state_; }
  std::vector<std::string> factor_names() const;
  std::pair<int64_t, int64_t> shape(const std::string& factor) const;  // global
  AdapterMatrix parameters_of(const std::string& factor) const;        // all of it
  // kind: "parameters", "moment1" or "moment2". The slice of the global matrix, row-major.
  void read(const std::string& kind, const std::string& factor, int64_t row_begin, int64_t rows, int64_t col_begin,
            int64_t cols, float* out) const;
  // Fills this rank's slices: parameters, and the moments where there are any. bad_data when the tensors are not the
  // same.
  void load(Trainables& trainables, Backend& backend) const;

 private:
  struct Piece {
    std::string file;
    int64_t row_begin = 0, rows = 0, col_begin = 0, cols = 0;
  };
  struct Factor {
    int64_t rows = 0, cols = 0;
    std::vector<Piece> pieces;
  };
  friend void save_checkpoint(const fs::path&, const CheckpointState&, const Trainables&, Backend&, const Mesh&);
  // What a manifest says; the files are looked at when they are read.
  Checkpoint(const fs::path& directory, const Json& manifest);
  static bool is_whole(const Factor& factor);  // whether its pieces make it up
  fs::path directory_;
  std::shared_ptr<FileHold> hold_;  // of the manifest
  CheckpointState state_;
  std::map<std::string, Factor> factors_;
};

// The directory of a checkpoint's adapter in PEFT's form, whose files are as the manifest says; nothing else of the
// checkpoint is read. Errors as `open` has them.
fs::path verified_adapter(const fs::path& checkpoint);

// run/step-N directories by step, ascending; temporary ones of a save that was cut off are removed by `clean_up`.
std::vector<std::pair<int64_t, fs::path>> checkpoint_directories(const fs::path& run);
void clean_up(const fs::path& run);
// Moves run/step-N for all N > `last_step` into run/set-aside, so that they are not taken for those of the run that
// begins or continues; for last_step < 0 all of them, and what else an earlier run wrote (metrics, answers, adapter).
// Where there is a set-aside from before, into set-aside-2, and so on.
struct SetAside {
  std::vector<std::string> names;  // what was moved
  fs::path to;
};
SetAside set_aside(const fs::path& run, int64_t last_step);
// Removes all but the newest `keep` and that of the step `best`, never the last that verifies, and none that is open.
void prune_checkpoints(const fs::path& run, int64_t keep, int64_t best = -1);

}  // namespace drover
