// Event files, which TensorBoard shows: scalars by step. A file is a sequence of records, TFRecord framing:
//   length u64 · masked CRC-32C of the length u32 · the event · masked CRC-32C of the event u32,  little endian,
// and an event is a protobuf message of tensorflow/core/util/event.proto, of which the fields that are needed are
// written here. Sources: tensorflow/core/lib/io/record_writer.h; protobuf.dev, "Encoding".
#pragma once
#include <optional>
#include <span>

#include "kernels/base/append_file.h"

namespace drover {

// Rank 0 only. The file is made with the first scalars, and named so that it comes after those that the directory
// holds: events.out.tfevents.SECONDS.HOST. It begins with a SessionLog START at `first_step`, by which TensorBoard
// drops what older files say of that step and later ones: after a resume each step stands once.
class EventFile {
 public:
  struct Scalar {
    std::string_view tag;
    double value;  // kept as a float
  };
  EventFile(fs::path directory, int64_t first_step);
  void write(int64_t step, std::span<const Scalar> scalars);  // Fault::io with the reason

 private:
  fs::path directory_;
  int64_t first_step_;
  std::optional<AppendFile> out_;
};

// The parts of a file, for the writer and its tests.
uint32_t crc32c(std::string_view bytes);      // Castagnoli, as RFC 3720 has it
std::string framed(std::string_view event);   // a record
std::string version_event(double wall_time);  // what a file begins with; wall_time: seconds since 1970
std::string start_event(double wall_time, int64_t step);
std::string scalar_event(double wall_time, int64_t step, std::span<const EventFile::Scalar> scalars);

}  // namespace drover
