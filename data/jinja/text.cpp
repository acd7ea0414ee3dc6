#include "data/jinja/text.h"

#include <algorithm>

namespace drover::jinja {

void Text::append(std::string_view bytes, const Origin& origin) {
  if (bytes.empty()) return;
  bytes_ += bytes;
  if (!runs_.empty() && runs_.back().origin == origin) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), origin});
  }
}

void Text::append(const Text& other) {
  size_t begin = 0;
  for (const Run& run : other.runs_) {
    append(std::string_view(other.bytes_).substr(begin, run.end - begin), run.origin);
    begin = run.end;
  }
}

Text Text::slice(size_t begin, size_t end) const {
  Text part;
  part.safe_ = safe_;
  auto run = std::upper_bound(runs_.begin(), runs_.end(), begin, [](size_t at, const Run& r) { return at < r.end; });
  while (begin < end && run != runs_.end()) {
    const size_t stop = std::min(end, run->end);
    part.append(std::string_view(bytes_).substr(begin, stop - begin), run->origin);
    begin = stop;
    ++run;
  }
  return part;
}

void Text::mark_generated() {
  for (Run& run : runs_) run.origin.generated = true;
}

const Origin& Text::origin_at(size_t byte) const {
  return std::upper_bound(runs_.begin(), runs_.end(), byte, [](size_t at, const Run& r) { return at < r.end; })->origin;
}

std::vector<size_t> characters(std::string_view text) {
  std::vector<size_t> at;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) at.push_back(i);
  }
  at.push_back(text.size());
  return at;
}

}  // namespace drover::jinja
