#include "trainer/run/seen_run.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>

#include "kernels/base/error.h"
#include "kernels/base/file_errors.h"
#include "kernels/base/host_name.h"
#include "kernels/base/json.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/run_directory.h"

namespace drover {

namespace {

constexpr size_t kStepsOfRate = 20;
constexpr size_t kSmallFile = 65536;  // of a file that holds one small object

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

template <typename T>
T number_of(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number() ? found->get<T>() : T{};
}

}  // namespace

std::optional<double> SeenRun::seconds_left() const {
  if (steps.empty() || total_steps < steps.back().step) return std::nullopt;
  const size_t count = std::min(steps.size(), kStepsOfRate);
  double seconds = 0;
  for (size_t i = steps.size() - count; i < steps.size(); ++i) seconds += steps[i].step_seconds;
  return seconds / static_cast<double>(count) * static_cast<double>(total_steps - steps.back().step);
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
    fail(Fault::missing_input,
         "{} is not a run: it holds none of recipe.yaml, metrics.jsonl and lock; give the output.dir of a recipe",
         run_.string());
  }
  read_lock();
  read_metrics();
  seen_.total_steps = number_of<int64_t>(object_of(run_ / RunDirectory::kFactsFile), "total_steps");
  seen_.checkpoint.reset();
  for (const auto& [step, path] : checkpoint_directories(run_)) seen_.checkpoint = step;
  return seen_;
}

// Without trying to take it: a run that begins at the same moment would find it taken.
void RunReader::read_lock() {
  const fs::path file = run_ / "lock";
  std::error_code ignored;
  const Json lock = object_of(file);
  seen_.pid = lock.is_object() ? number_of<int64_t>(lock, "pid") : 0;
  seen_.host = lock.is_object() && lock.contains("host") && lock["host"].is_string() ? lock["host"] : Json("");
  if (seen_.pid <= 0 || seen_.host.empty()) {
    seen_.life = fs::exists(file, ignored) ? RunLife::lost : RunLife::ended;
    return;
  }
  const bool alive = kill(static_cast<pid_t>(seen_.pid), 0) == 0 || errno == EPERM;
  seen_.life = seen_.host != host_name() ? RunLife::elsewhere : alive ? RunLife::working : RunLife::lost;
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
  if (!j.is_object() || !j.contains("step")) return;
  const int64_t step = number_of<int64_t>(j, "step");
  if (j.contains("validation_loss")) seen_.validations.push_back({step, number_of<double>(j, "validation_loss")});
  if (!j.contains("loss")) return;
  seen_.steps.push_back({.step = step,
                         .loss = number_of<double>(j, "loss"),
                         .grad_norm = number_of<double>(j, "grad_norm"),
                         .learning_rate = number_of<double>(j, "learning_rate"),
                         .tokens_per_second = number_of<double>(j, "tokens_per_second"),
                         .step_seconds = number_of<double>(j, "step_seconds"),
                         .peak_bytes = number_of<int64_t>(j, "peak_bytes")});
}

}  // namespace drover
