#include "launch/verbs/answer_file.h"

#include <iostream>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "kernels/comm/agree.h"

namespace drover {

namespace {

void drop_half_line(const std::string& file) {
  if (!fs::exists(file)) return;
  const std::string text = read_text(file);
  const size_t end = text.rfind('\n');
  if (end == std::string::npos) return write_text(file, "");
  if (end + 1 != text.size()) write_text(file, text.substr(0, end + 1));
}

// How many answers a file holds already; bad_data where one of them is not of the prompt in its place.
size_t answers_in(const std::string& file, const std::vector<Prompt>& prompts) {
  if (!fs::exists(file) || fs::file_size(file) == 0) return 0;
  const std::vector<Prompt> answered = read_prompts(file, PromptRows::good_and_failed);
  for (size_t i = 0; i < answered.size(); ++i) {
    const bool failed = !answered[i].problem.empty();
    if (i < prompts.size() && (failed || answered[i].dialog == prompts[i].dialog)) continue;
    fail(Fault::bad_data, "{} does not answer {}; --resume continues the file of the same prompts, name another --out",
         answered[i].where, i < prompts.size() ? prompts[i].where : "any of the prompts");
  }
  return answered.size();
}

}  // namespace

AnswerFile::AnswerFile(const std::string& out, bool resume, const std::vector<Prompt>& prompts, Communicator& world)
    : world_(world) {
  if (out.empty()) return;
  const bool first = world.rank() == 0;
  together(world, [&] {
    if (resume && first) drop_half_line(out);
  });
  together(world, [&] {
    if (resume) done_ = answers_in(out, prompts);
  });
  together(world, [&] {
    if (!first) return;
    file_.emplace(out, resume ? AppendFile::Begin::keep : AppendFile::Begin::anew);
  });
}

void AnswerFile::write_line(const std::string& line) {
  if (world_.rank() != 0 || unwritten_) return;
  if (!file_) {
    std::cout << line << '\n' << std::flush;
    return;
  }
  try {
    file_->write(line + '\n');
  } catch (const Error& error) {
    unwritten_ = error;
  }
}

void AnswerFile::write(const Prompt& prompt, const std::string& answer) { write_line(answered_row(prompt, answer)); }

void AnswerFile::write_error(size_t index, const std::string& message) { write_line(failed_row(index + 1, message)); }

void AnswerFile::check() {
  together(world_, [&] {
    if (unwritten_) throw Error(*unwritten_);
    if (world_.rank() == 0 && !std::cout) fail(Fault::io, "cannot write to stdout; is the disk full?");
  });
}

}  // namespace drover
