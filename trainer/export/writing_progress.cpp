#include "trainer/export/writing_progress.h"

#include <algorithm>

#include "kernels/base/log.h"

namespace drover {

namespace {

constexpr double kSecondsBetween = 5;
constexpr double kGiga = 1e9, kMega = 1e6;

double seconds(std::chrono::steady_clock::duration time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

WritingProgress::WritingProgress(const char* done, fs::path files, int64_t total_bytes)
    : done_(done), files_(std::move(files)), total_(total_bytes) {
  before_ = written();
}

int64_t WritingProgress::written() const {
  int64_t bytes = 0;
  std::error_code gone;  // a file gets its name while its directory is read
  for (fs::directory_iterator each(files_, gone), end; !gone && each != end; each.increment(gone)) {
    const uintmax_t size = each->file_size(gone);
    if (!gone) bytes += static_cast<int64_t>(size);
    gone.clear();
  }
  return std::min(bytes, total_);
}

void WritingProgress::tick() {
  const Clock::time_point now = Clock::now();
  if (log::rank() != 0 || seconds(now - said_) < kSecondsBetween) return;
  said_ = now;
  const int64_t bytes = written();
  const double rate = static_cast<double>(bytes - before_) / seconds(now - start_);
  const auto eta = static_cast<int64_t>(static_cast<double>(total_ - bytes) / std::max(rate, 1.0));
  log::info("{} {:.2f} of {:.2f} GB  {:.0f} MB/s  ETA {}:{:02}", done_, static_cast<double>(bytes) / kGiga,
            static_cast<double>(total_) / kGiga, rate / kMega, eta / 60, eta % 60);
}

void WritingProgress::finish() {
  log::info("{} {:.2f} GB in {:.1f} s", done_, static_cast<double>(written() - before_) / kGiga,
            seconds(Clock::now() - start_));
}

}  // namespace drover
