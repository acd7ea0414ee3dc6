// What `drover doctor --calibrate` measured of a machine, and the file that keeps it: JSON under
// $XDG_CACHE_HOME/drover (or ~/.cache/drover), one for each device, number of ranks that share the machine, and threads
// of each.
#pragma once
#include <optional>

#include "kernels/base/file.h"
#include "trainer/planning/rates.h"

namespace drover {

struct MeasuredMachine {
  std::string device;  // "Intel(R) Xeon(R) Processor, AVX-512 …", "NVIDIA H100 80GB HBM3"
  int ranks = 1;       // of this machine, measured while all of them computed
  int threads = 1;     // of each
  bool operator==(const MeasuredMachine&) const = default;
};

struct Calibration {
  MeasuredMachine machine;
  std::string version;          // of the program that measured: its kernels'
  std::string date;             // "2026-11-30"
  double seconds = 0;           // that measuring took
  double outside_per_call = 0;  // seconds of a step that lie in no op, for each op
  double read = 0;              // bytes/s from the disk of the cache's directory
  double write = 0;  // bytes/s of a file that is written there, synced and hashed, as checkpoints are; 0: not measured
  std::vector<OpSample> ops;
  std::vector<MessageSample> messages;
};

fs::path calibration_directory();
fs::path calibration_file(const MeasuredMachine& machine);
void write_calibration(const Calibration& calibration, const fs::path& file);
Calibration read_calibration(const fs::path& file);  // missing_input; bad_data naming what does not fit
// Of this machine, from the cache; nothing where it was not measured so.
std::optional<Calibration> find_calibration(const MeasuredMachine& machine);

}  // namespace drover
