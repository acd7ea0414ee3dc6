#include "data/stop_texts.h"

#include <algorithm>

namespace drover {

bool StopTexts::push(int32_t id) {
  if (found_) return true;
  const size_t before = text_.size();
  text_ += stream_.push(id);
  size_t end = std::string::npos;
  for (const std::string& stop : texts_) {
    // It was not there before: it ends in the new part.
    const size_t from = before < stop.size() ? 0 : before - stop.size() + 1;
    end = std::min(end, text_.find(stop, from));
  }
  found_ = end != std::string::npos;
  if (found_) text_.resize(end);
  return found_;
}

}  // namespace drover
