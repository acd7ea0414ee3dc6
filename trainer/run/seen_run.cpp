#include "trainer/run/seen_run.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <ctime>

#include "kernels/base/error.h"
#include "kernels/base/file_errors.h"
#include "kernels/base/json.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/run_directory.h"
#include "trainer/run/seen_lock.h"

namespace drover {

namespace {

constexpr size_t kStepsOfRate = 20;
constexpr size_t kSmallFile = 65536;  // bytes of run.json

class Descriptor {
 public:
  explicit Descriptor(const fs::path& file) : number_(open(file.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }

 private:
  int number_;
};

// Null where the text is no object, or only the beginning of one.
Json object_in(const std::string& text) {
  try {
    Json j = parse_json(text, "");
    return j.is_object() ? j : Json();
  } catch (const Error&) {
    return {};
  }
}

// Null where the file is not there: it may come or leave at any time.
Json object_of(const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return {};
  try {
    return object_in(read_text(file, kSmallFile));
  } catch (const Error& error) {
    if (error.fault() != Fault::missing_input) throw;
    return {};
  }
}

double number_of(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number() ? found->get<double>() : kUnseen;
}

// A whole number from 0 on, if it is one.
std::optional<int64_t> whole_of(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number_integer() || found->get<int64_t>() < 0) return std::nullopt;
  return found->get<int64_t>();
}

bool is_awaited(const fs::path& directory) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (entry.path().filename() != "data") return false;
  }
  return !error;
}

}  // namespace

std::optional<double> SeenRun::seconds_left() const {
  if (steps.empty() || total_steps < steps.back().step) return std::nullopt;
  const size_t count = std::min(steps.size(), kStepsOfRate);
  double seconds = 0, known = 0;
  for (size_t i = steps.size() - count; i < steps.size(); ++i) {
    if (std::isfinite(steps[i].step_seconds)) seconds += steps[i].step_seconds, ++known;
  }
  if (known == 0) return std::nullopt;
  return seconds / known * static_cast<double>(total_steps - steps.back().step);
}

const SeenRun& RunReader::look() {
  std::error_code ignored;
  if (!fs::exists(run_, ignored)) {
    seen_ = {};
    inode_ = 0;
    return seen_;
  }
  const auto holds = [&](const char* name) { return fs::exists(run_ / name, ignored); };
  if (!holds("recipe.yaml") && !holds("metrics.jsonl") && !holds("lock")) {
    if (is_awaited(run_)) {
      seen_ = {.life = RunLife::awaited};
      inode_ = 0;
      return seen_;
    }
    fail(Fault::missing_input,
         "{} is not a run: it holds none of recipe.yaml, metrics.jsonl and lock; give the output.dir of a recipe",
         run_.string());
  }
  read_lock();
  read_metrics();
  seen_.total_steps = whole_of(object_of(run_ / RunDirectory::kFactsFile), "total_steps").value_or(0);
  seen_.checkpoint.reset();
  for (const auto& [step, path] : checkpoint_directories(run_)) seen_.checkpoint = step;
  return seen_;
}

void RunReader::read_lock() {
  const SeenLock lock = seen_lock(run_);
  seen_.host = lock.host, seen_.pid = lock.pid;
  switch (lock.state) {
    case LockState::free: seen_.life = RunLife::ended; break;
    case LockState::here: seen_.life = RunLife::working; break;
    case LockState::elsewhere: seen_.life = RunLife::elsewhere; break;
    case LockState::left: seen_.life = RunLife::lost; break;
  }
}

void RunReader::read_metrics() {
  const fs::path file = run_ / "metrics.jsonl";
  const Descriptor in(file);
  struct stat status {};
  const bool open = in.number() >= 0 && fstat(in.number(), &status) == 0;
  if (!open && errno != ENOENT) fail_to_read("read", file, errno);
  if (!open || status.st_ino != inode_ || status.st_size < read_bytes_) {
    seen_.steps.clear();
    seen_.validations.clear();
    rest_.clear();
    read_bytes_ = 0;
  }
  seen_.quiet_seconds.reset();
  inode_ = open ? status.st_ino : 0;
  if (!open) return;
  seen_.quiet_seconds = std::max(0.0, std::difftime(std::time(nullptr), status.st_mtime));
  std::string part(1 << 16, '\0');
  for (ssize_t got; (got = pread(in.number(), part.data(), part.size(), read_bytes_)) > 0; read_bytes_ += got) {
    rest_.append(part, 0, static_cast<size_t>(got));
    size_t begin = 0;
    for (size_t end; (end = rest_.find('\n', begin)) != std::string::npos; begin = end + 1)
      take(rest_.substr(begin, end - begin));
    rest_.erase(0, begin);
  }
}

void RunReader::take(const std::string& line) {
  const Json j = object_in(line);
  const std::optional<int64_t> step = j.is_object() ? whole_of(j, "step") : std::nullopt;
  if (!step) return;
  if (j.contains("validation_loss")) seen_.validations.push_back({*step, number_of(j, "validation_loss")});
  if (!j.contains("loss")) return;
  seen_.steps.push_back({.step = *step,
                         .loss = number_of(j, "loss"),
                         .grad_norm = number_of(j, "grad_norm"),
                         .learning_rate = number_of(j, "learning_rate"),
                         .tokens_per_second = number_of(j, "tokens_per_second"),
                         .step_seconds = number_of(j, "step_seconds"),
                         .peak_bytes = whole_of(j, "peak_bytes").value_or(0)});
}

}  // namespace drover
