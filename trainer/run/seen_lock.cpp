#include "trainer/run/seen_lock.h"

#include <cerrno>
#include <csignal>
#include <limits>

#include "kernels/base/error.h"
#include "kernels/base/host_name.h"
#include "kernels/base/json.h"

namespace drover {

namespace {

constexpr size_t kLimit = 65536;  // bytes; a lock has some tens

// Nothing where the file is not there: it may leave at any time.
std::optional<std::string> text_of(const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  try {
    return read_text(file, kLimit);
  } catch (const Error& error) {
    if (error.fault() != Fault::missing_input) throw;
    return std::nullopt;
  }
}

bool is_alive(int64_t pid) { return kill(static_cast<pid_t>(pid), 0) == 0 || errno == EPERM; }

}  // namespace

SeenLock seen_lock(const fs::path& run) {
  const std::optional<std::string> text = text_of(run / "lock");
  if (!text) return {};
  SeenLock lock{.state = LockState::left};
  if (json_depth(*text) > kJsonDepth) return lock;
  const Json holder = Json::parse(*text, nullptr, false);
  const Json host = holder.is_object() ? holder.value("host", Json()) : Json();
  const Json pid = holder.is_object() ? holder.value("pid", Json()) : Json();
  if (!host.is_string() || host == "" || !pid.is_number_integer()) return lock;
  const auto number = pid.get<int64_t>();
  if (number <= 0 || number > std::numeric_limits<pid_t>::max()) return lock;
  lock.host = host.get<std::string>(), lock.pid = number;
  lock.state = lock.host != host_name() ? LockState::elsewhere : is_alive(number) ? LockState::here : LockState::left;
  return lock;
}

}  // namespace drover
