// Takes the answers to a file of prompts, a JSON line each and in order: stdout, or a file that a later run continues
// with.
#pragma once
#include <optional>

#include "data/prompts.h"
#include "kernels/base/append_file.h"
#include "kernels/base/error.h"
#include "kernels/comm/communicator.h"

namespace drover {

class AnswerFile {
 public:
  // Collective; rank 0 writes. `out` empty: stdout. With `resume` what the file holds is kept, but for half a last line
  // that an interrupted run left; bad_data where it is not of these prompts. io where it cannot be written.
  AnswerFile(const std::string& out, bool resume, const std::vector<Prompt>& prompts, Communicator& world);

  size_t done() const { return done_; }  // how many prompts have an answer already
  void write(const Prompt& prompt, const std::string& answer);
  // {"error": {"row", "message"}} in the place of an answer; rows count from 1.
  void write_error(size_t index, const std::string& message);
  void check();  // collective: io where something could not be written

 private:
  void write_line(const std::string& line);
  Communicator& world_;
  size_t done_ = 0;
  std::optional<AppendFile> file_;
  std::optional<Error> unwritten_;
};

}  // namespace drover
